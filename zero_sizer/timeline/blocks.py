"""Forward and backward in full: the highest point of every block, in the order they run.

``timeline`` looks for the one highest point and skips what cannot be it; a plot wants them all.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from zero_sizer.activations.levels import MicroStep, PartLevels, remaining
from zero_sizer.timeline.overlay import Overlay, Zero, overlay_of
from zero_sizer.timeline.peaks import Instant, after_backward
from zero_sizer.timeline.program import Layout


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
    overlay = overlay_of(layout, zero)
    found = list(_pass(step.parts, overlay, 0, is_backward=False))
    found += _pass(step.parts[::-1], overlay, step.saved, is_backward=True)
    return [*found, BlockPeak(True, "", after_backward(remaining(step), overlay))]


def _pass(
    parts: Sequence[PartLevels], overlay: Overlay, level: int, *, is_backward: bool
) -> Iterator[BlockPeak]:
    column = 0
    for part in parts:
        section = part.backward if is_backward else part.forward
        columns = [at for step in section.steps for at in (step.peak, step.end)]
        for number in range(part.count):
            index = part.first + (part.count - 1 - number if is_backward else number)
            instants = (
                _instant(overlay, column + j, number, level + at, is_backward)
                for j, at in enumerate(columns)
            )
            highest = max(instants, key=lambda instant: instant.total)
            yield BlockPeak(is_backward, f"{part.blocks}.{index}" if part.blocks else "", highest)
            level += section.end
        column += len(columns)


def _instant(
    overlay: Overlay, column: int, block: int, activations: int, is_backward: bool
) -> Instant:
    at = overlay.at(column, block, is_backward=is_backward)
    return Instant(place=at.label, activations=activations, gathered=at.gathered, held=at.held)
