"""Forward and backward in full: the highest point of every block, in the order they run.

``timeline`` looks for the one highest point and skips what cannot be it; a plot wants them all.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from zero_sizer.passes.levels import MicroStep, PartLevels, SectionLevels
from zero_sizer.passes.timeline import (
    Instant,
    Layout,
    Place,
    Walk,
    Zero,
    after_backward,
)

_Parts = Iterable[tuple[PartLevels, tuple[tuple[Place, ...], ...]]]


class BlockPeak(NamedTuple):
    """The highest point of one block, or of what runs outside of blocks.

    Attributes:
        is_backward: of the two passes.
        block: qualified name; empty outside.
        instant: the point, in bytes beside everything persistent.
    """

    is_backward: bool
    block: str
    instant: Instant


def block_peaks(step: MicroStep, layout: Layout, zero: Zero) -> list[BlockPeak]:
    """One micro step, block by block; the highest of each pass is the timeline's."""
    walk = Walk(layout, zero)
    forward = zip(step.parts, layout.forward, strict=True)
    found = list(_pass(forward, walk, 0, is_backward=False))
    backward = zip(reversed(step.parts), reversed(layout.backward), strict=True)
    found += _pass(backward, walk, step.saved, is_backward=True)
    return [*found, BlockPeak(True, "", after_backward(step, walk.gathered, walk.epilogue))]


def _pass(parts: _Parts, walk: Walk, level: int, *, is_backward: bool) -> Iterator[BlockPeak]:
    for part, positions in parts:
        section = part.backward if is_backward else part.forward
        instants = _highest(section, walk, positions, level)
        for number, instant in enumerate(instants):
            index = part.first + (part.count - 1 - number if is_backward else number)
            yield BlockPeak(is_backward, f"{part.blocks}.{index}" if part.blocks else "", instant)
        level += part.count * section.end


def _highest(
    section: SectionLevels, walk: Walk, positions: tuple[tuple[Place, ...], ...], level: int
) -> list[Instant]:
    """The highest instant of each block of a part, in the order they run."""
    best: dict[int, Instant] = {}
    for step, (within, ends) in zip(section.steps, walk.part(positions), strict=True):
        for activations, points in ((step.peak, within), (step.end, ends)):
            for point in points:
                instant = Instant(
                    place=point.label,
                    activations=level + point.block * section.end + activations,
                    gathered=point.gathered,
                    held=point.held,
                )
                if point.block not in best or instant.total > best[point.block].total:
                    best[point.block] = instant
    return list(best.values())
