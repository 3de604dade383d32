"""Variants of activation checkpointing, made of a model's two profiles: with and without.

A block's section is the same whatever its neighbours do: it counts from the level at which it
begins. So some blocks can be taken from the one profile and the rest from the other, and what a
variant keeps elsewhere than on the GPU moves the levels of the sections it concerns.
"""

from collections.abc import Callable, Iterator

from zero_sizer.passes.levels import (
    Activations,
    Level,
    MicroStep,
    Part,
    PartLevels,
    Section,
    SectionLevels,
    remaining,
)

Chooses = Callable[[int], bool]  # whether block number so, counted through all stacks, is meant


def mixed(checkpointed: MicroStep, plain: MicroStep, recomputes: Chooses) -> Activations:
    """Blocks recomputed where ``recomputes`` says so.

    What runs outside of blocks is taken from ``checkpointed``, so the first block should be one of
    those. What is freed at the end of the forward (autocast's copies of weights that no block
    saves) is what is left over when all else is freed.
    """
    others = {key: part for part in plain.parts for key in _blocks(part)}
    parts: list[PartLevels] = []
    number = 0
    for part in checkpointed.parts:
        if not part.blocks:
            parts.append(part)
            continue
        for blocks, index in _blocks(part):
            chosen = part if recomputes(number) else others[blocks, index]
            _append(parts, Part(blocks, index, 1, chosen.forward, chosen.backward))
            number += 1
    found = Activations(tuple(parts))
    late = remaining(found) - remaining(checkpointed)
    if late:
        last = parts[-1]
        forward = _moved(last.forward, end=-late)
        parts[-1] = Part(last.blocks, last.first, last.count, forward, last.backward)
    return Activations(tuple(parts))


def _blocks(part: PartLevels) -> Iterator[tuple[str, int]]:
    if part.blocks:
        yield from ((part.blocks, part.first + number) for number in range(part.count))


def _append(parts: list[PartLevels], part: Part) -> None:
    """Adds a block; one that is like its neighbour joins it."""
    last = parts[-1] if parts else None
    if (
        last is not None
        and last.blocks == part.blocks
        and last.forward is part.forward
        and last.backward is part.backward
    ):
        count = last.count + part.count
        parts[-1] = Part(part.blocks, last.first, count, part.forward, part.backward)
    else:
        parts.append(part)


def _moved(section: SectionLevels, *, within: int = 0, end: int = 0) -> Section:
    """The section with ``within`` more bytes in it, and ``end`` more when it is over."""
    steps = [Level(s.runs, s.completes, s.peak + within, s.end + within) for s in section.steps]
    steps[-1] = steps[-1]._replace(end=section.end + end)
    return Section(tuple(steps))
