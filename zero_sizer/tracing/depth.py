"""How many blocks to trace: the smallest model that has every kind of block, and its neighbours."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from zero_sizer.activations.kinds import followed_kinds
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
        followed: blocks after which something runs outside of them, before the next.
    """

    prefix: str
    depth: int
    lead: int
    period: int
    traced: int
    kinds: tuple[int, ...] = ()
    followed: tuple[int, ...] = ()

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


def with_followed(stack: Stack, followed: Sequence[int]) -> Stack:
    """A stack after some of whose blocks something runs outside.

    All are traced, unless these are the first, which ``kinds`` tell from the others.
    """
    if tuple(followed) == tuple(range(len(followed))):
        return replace(stack, followed=tuple(followed))
    kinds = tuple(followed_kinds(followed, stack.depth))
    return replace(
        stack, lead=0, period=1, traced=stack.depth, kinds=kinds, followed=tuple(followed)
    )


def whole(stack: Stack) -> Stack:
    """A stack of which all blocks are traced."""
    return replace(stack, lead=0, period=stack.depth, traced=stack.depth)


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
