"""How long ``re`` may need, from the tree it compiles: a bound, never an estimate from below."""

import math
from typing import Any, NamedTuple

_ONE = frozenset({"LITERAL", "NOT_LITERAL", "ANY", "IN", "RANGE", "CATEGORY"})
_MOST_BITS = 60  # of a number of ways: beyond, nobody waits
_REPEATS = frozenset({"MAX_REPEAT", "MIN_REPEAT"})


class _Bound(NamedTuple):
    """Of one part: ways to get through it, and steps to try them all."""

    ways: float
    steps: float


def cost(tree: Any, length: int) -> float:
    """Most elementary steps on a text of ``length`` characters; infinite where nobody knows."""
    try:
        return _sequence(tree, length).steps
    except (OverflowError, RecursionError):
        return math.inf


def _sequence(items: Any, length: int) -> _Bound:
    """Every way through one part is followed by all of the next."""
    ways, steps = 1.0, 1.0
    for kind, value in items:
        part = _part(str(kind), value, length)
        steps += ways * part.steps
        ways *= part.ways
    return _Bound(ways, steps)


def _part(kind: str, value: Any, length: int) -> _Bound:
    if kind in _ONE or kind == "AT":
        return _Bound(1, 1)
    if kind == "BRANCH":
        parts = [_sequence(items, length) for items in value[1]]
        return _Bound(sum(p.ways for p in parts), 1 + sum(p.steps for p in parts))
    if kind in _REPEATS or kind == "POSSESSIVE_REPEAT":
        least, most, items = value
        found = _repeat(least, most, items, length)
        return _Bound(1, found.steps) if kind == "POSSESSIVE_REPEAT" else found
    if kind == "SUBPATTERN":
        return _sequence(value[3], length)
    if kind in ("ASSERT", "ASSERT_NOT"):
        return _Bound(1, 1 + _sequence(value[1], length).steps)  # once through is enough
    if kind == "ATOMIC_GROUP":
        return _Bound(1, 1 + _sequence(value, length).steps)
    return _Bound(math.inf, math.inf)  # what refers back to a group


def _repeat(least: int, most: Any, items: Any, length: int) -> _Bound:
    inner = _sequence(items, length)
    turns = min(int(most), least + length + 1)  # an empty turn ends the loop
    if inner.ways == 1:
        return _Bound(turns - least + 1, (turns + 1) * inner.steps)
    if turns * math.log2(inner.ways) > _MOST_BITS:
        return _Bound(math.inf, math.inf)
    ways = sum(inner.ways**turn for turn in range(turns + 1))
    return _Bound(ways, ways * inner.steps)
