"""Variants of activation checkpointing, made of a model's two profiles: with and without.

A block's section is the same whatever its neighbours do: it counts from the level at which it
begins. So some blocks can be taken from the one profile and the rest from the other, and what a
variant keeps elsewhere than on the GPU moves the levels of the sections it concerns.
"""

from collections.abc import Callable
from itertools import accumulate
from typing import Any

from zero_sizer.activations.levels import (
    Activations,
    ComposedPart,
    ComposedSection,
    Level,
    MicroStep,
    PartLevels,
    SectionLevels,
    StepLevels,
    remaining,
)
from zero_sizer.util.records import dataclass

_ROUNDING = 4096  # bytes: what else a first block may differ by

Chooses = Callable[[int], bool]  # whether block number so, counted through all stacks, is meant


def mixed(checkpointed: MicroStep, plain: MicroStep, recomputes: Chooses) -> Activations:
    """Blocks recomputed where ``recomputes`` says so.

    What runs outside of blocks is taken from ``checkpointed``, so the first block should be one of
    those. What is freed at the end of the forward (autocast's copies of weights that no block
    saves) is what is left over when all else is freed.
    """
    others = [part for part in plain.parts for _ in _blocks(part)]

    def kind(number: int) -> int:
        return -1 if recomputes(number) else id(others[number])

    def make(number: int, part: PartLevels) -> Sections:
        chosen = part if recomputes(number) else others[number]
        return moved(chosen.forward), moved(chosen.backward)

    parts = by_block(checkpointed, kind, make)
    found = Activations(tuple(parts))
    late = remaining(found) - remaining(checkpointed)
    if late:
        last = parts[-1]
        parts[-1] = ComposedPart.like(last, forward=moved(last.forward, end=-late))
    return Activations(tuple(parts))


def _blocks(part: PartLevels) -> range:
    """Numbers of the blocks; none of what lies outside of them."""
    return range(part.first, part.first + part.count) if part.blocks else range(0)


def _append(parts: list[PartLevels], part: ComposedPart) -> None:
    """Adds a block; one that is like its neighbour joins it."""
    last = parts[-1] if parts else None
    if (
        last is not None
        and last.blocks == part.blocks
        and last.forward is part.forward
        and last.backward is part.backward
    ):
        end = last.first + last.count + part.count
        parts[-1] = ComposedPart.like(part, blocks=range(last.first, end))
    else:
        parts.append(part)


def moved(section: SectionLevels, *, within: int = 0, end: int = 0) -> ComposedSection:
    """The section with ``within`` more bytes in it, and ``end`` more when it is over."""
    steps = [Level(s.runs, s.completes, s.peak + within, s.end + within) for s in section.steps]
    steps[-1] = steps[-1]._replace(end=section.end + end)
    return ComposedSection(tuple(steps))


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Where the inputs of checkpointed blocks wait, and what recomputation leaves.

    Attributes:
        num_bytes: of one input.
        reentrant: the recomputed output lives until the block's backward is over.
        leave: they go to the host.
        newest: so many of the newest stay all the same.
        kept: one that came back lives until its block's backward is over, not only until it has
            been used.
        held_by_model: a model whose own forward holds the first one does so.
        cloned: copied before its block runs; the original goes afterwards.
        reserved: room for so many is allocated with the first.
    """

    num_bytes: int
    reentrant: bool = False
    leave: bool = False
    newest: int = 0
    kept: bool = True
    held_by_model: bool = False
    cloned: bool = False
    reserved: int = 0

    def forward(self, section: SectionLevels, number: int) -> SectionLevels:
        """The forward of checkpointed block ``number``."""
        size = self.num_bytes
        within = size if self.cloned else 0
        end = -size if (self.leave and number >= self.newest) or self.reserved else 0
        if not number:
            within += self.reserved * size
            end += self.reserved * size
        return moved(section, within=within, end=end)

    def backward(self, section: SectionLevels, number: int, total: int) -> SectionLevels:
        """The backward of checkpointed block ``number`` of ``total``."""
        size = self.num_bytes
        comes_back = size if self.leave and number < total - self.newest else 0
        after = (comes_back if self.kept else 0) + (size if self.reentrant else 0)
        unused = (self.reserved - total) * size if self.reserved and number == total - 1 else 0
        return _recomputed(section, comes_back - unused, after - unused, comes_back - unused)

    def kind(self, number: int, total: int) -> tuple[bool, ...]:
        """Key that tells two blocks of the same sections apart."""
        first, last = self.newest, total - self.newest
        return (number < first, number < last, not number, number == total - 1)


def _recomputed(section: SectionLevels, before: int, after: int, end: int) -> ComposedSection:
    """The backward with ``before`` more bytes until all is recomputed, then ``after``."""
    running = [index for index, step in enumerate(section.steps) if _runs_again(step)]
    last = running[-1] if running else -1
    steps = []
    for index, step in enumerate(section.steps):
        peak = before if index < last else max(before, after) if index == last else after
        more = before if index < last else after
        steps.append(Level(step.runs, step.completes, step.peak + peak, step.end + more))
    steps[-1] = steps[-1]._replace(end=section.end + end)
    return ComposedSection(tuple(steps))


def _runs_again(step: StepLevels) -> bool:
    """Whether modules begin or end there; else at most their backward begins."""
    return any(not token.startswith("^") for token in step.runs.split())


def placed(step: MicroStep, plain: MicroStep, recomputes: Chooses, inputs: Inputs) -> Activations:
    """A step whose checkpointed blocks keep their inputs as ``inputs`` says.

    Args:
        step: with inputs on the GPU, by torch's non-reentrant checkpoint.
        plain: the same model without checkpointing.
        recomputes: which blocks are meant.
        inputs: what becomes of theirs.
    """
    total = num_recomputed(step, recomputes)
    ordinals = list(accumulate(map(recomputes, range(_num_blocks(step))), initial=0))

    def kind(number: int) -> tuple[bool, ...]:
        return inputs.kind(ordinals[number], total) if recomputes(number) else ()

    def make(number: int, part: PartLevels) -> Sections:
        if not recomputes(number):
            return part.forward, part.backward
        done = ordinals[number]
        backward = inputs.backward(part.backward, done, total)
        return inputs.forward(part.forward, done), backward

    parts = by_block(step, kind, make)
    if inputs.held_by_model and _is_held(plain, inputs.num_bytes):
        _hold_first(parts, inputs.num_bytes)
    return Activations(tuple(parts))


def num_recomputed(step: MicroStep, recomputes: Chooses) -> int:
    """Checkpointed blocks of a step."""
    return sum(map(recomputes, range(_num_blocks(step))))


def _num_blocks(step: MicroStep) -> int:
    return sum(part.count for part in step.parts if part.blocks)


Sections = tuple[SectionLevels, SectionLevels]  # of one block: forward and backward


def by_block(
    step: MicroStep, kind: Callable[[int], Any], make: Callable[[int, PartLevels], Sections]
) -> list[PartLevels]:
    """The parts of a step with other sections for its blocks.

    Args:
        step: any.
        kind: what tells the blocks of one part apart, by their number through all stacks.
        make: the sections of block number so; asked once for each kind.
    """
    made: dict[tuple[Any, ...], Sections] = {}
    parts: list[PartLevels] = []
    number = 0
    for place, part in enumerate(step.parts):
        if not part.blocks:
            parts.append(part)
        for index in _blocks(part):
            key = (place, kind(number))
            if key not in made:
                made[key] = make(number, part)
            forward, backward = made[key]
            blocks = range(index, index + 1)
            _append(
                parts, ComposedPart.like(part, blocks=blocks, forward=forward, backward=backward)
            )
            number += 1
    return parts


def _hold_first(parts: list[PartLevels], size: int) -> None:
    """The first input stays until the model's forward is over, which the last part begins with."""
    where = next(index for index, part in enumerate(parts) if part.blocks)
    first, last = parts[where], parts[-1]
    second, end = first.first + 1, first.first + first.count
    held = ComposedPart.like(
        first, blocks=range(first.first, second), forward=moved(first.forward, end=size)
    )
    rest = ComposedPart.like(first, blocks=range(second, end))
    parts[where : where + 1] = [held, rest] if rest.count else [held]
    forward = moved(last.forward, within=-size, end=-size)
    parts[-1] = ComposedPart.like(last, forward=forward)


def _is_held(plain: MicroStep, size: int) -> bool:
    """Whether the model's own forward holds the first block's input until it is over.

    The first block then does not let it go, as the second does.
    """
    ends = [part.forward.end for part in plain.parts if part.blocks for _ in range(part.count)]
    return len(ends) > 1 and abs(ends[0] - ends[1] - size) < _ROUNDING
