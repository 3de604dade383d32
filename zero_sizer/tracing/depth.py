"""How many blocks to trace: the smallest model that has every kind of block, and its neighbours."""

from collections.abc import Sequence
from typing import Any

from zero_sizer.util.records import dataclass

REPEATS = 3  # a first one, one that stands for all between, a last one
_LONGEST_PERIOD = 8


@dataclass(frozen=True, kw_only=True)
class Stack:
    """A row of blocks, such as a decoder: some that differ, then a pattern that repeats.

    Attributes:
        prefix: qualified name of the list of blocks.
        depth: blocks of the model.
        lead: blocks before the pattern.
        period: blocks of one pattern.
        traced: blocks that are traced.
        kinds: which kind each traced block is, where any order of kinds is meant.
    """

    prefix: str
    depth: int
    lead: int
    period: int
    traced: int
    kinds: tuple[int, ...] = ()

    @property
    def cut(self) -> int:
        """Patterns that the traced stack lacks."""
        return (self.depth - self.traced) // self.period


def stacks_of(names: Sequence[str], kinds: Sequence[Any]) -> list[Stack]:
    """The stacks of the blocks called ``names``, in order; equal ``kinds`` are the same block."""
    rows: dict[str, list[Any]] = {}
    for name, kind in zip(names, kinds, strict=True):
        rows.setdefault(name.rpartition(".")[0], []).append(kind)
    return [_stack(prefix, row) for prefix, row in rows.items()]


def _stack(prefix: str, kinds: list[Any]) -> Stack:
    depth = len(kinds)
    lead, period = _pattern(kinds)
    patterns, rest = divmod(depth - lead, period)
    traced = lead + period * min(patterns, REPEATS) + rest
    return Stack(prefix=prefix, depth=depth, lead=lead, period=period, traced=traced)


def _pattern(kinds: list[Any]) -> tuple[int, int]:
    """(blocks before the pattern, its length) with the fewest blocks to trace."""
    depth = len(kinds)
    fits = [
        (lead + REPEATS * period, lead, period)
        for period in range(1, min(depth, _LONGEST_PERIOD) + 1)
        for lead in range(depth)
        if kinds[lead + period :] == kinds[lead:-period] and lead + period <= depth
    ]
    _, lead, period = min(fits, default=(0, 0, depth))
    return lead, period
