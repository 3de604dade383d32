"""Byte counts as polynomials in the micro batch b and the sequence s.

A polynomial is a tuple of integers, the coefficients of (1, s, b, b*s, s*s, b*s*s, b*b); the last
is of models that compare each sample with every other.
"""

import operator
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

from zero_sizer.errors import WitnessError

Poly = tuple[int, ...]
Point = tuple[int, int]
ZERO: Poly = (0, 0, 0, 0, 0, 0, 0)
_EXPONENTS = ((0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (1, 2), (2, 0))  # of b and s
_RARE = 6  # terms before it explain a size better than it does
_BATCHES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128, 512, 4096)
_SEQUENCES = tuple(64 * 2**i for i in range(16)) + tuple(96 * 2**i for i in range(15))


def constant(value: int) -> Poly:
    """A size that nothing changes."""
    return (value, *ZERO[1:])


def monomials(b: int, s: int) -> tuple[int, ...]:
    """Monomials that the coefficients multiply."""
    return (1, s, b, b * s, s * s, b * s * s, b * b)


def at(poly: Sequence[int], b: int, s: int) -> int:
    """The polynomial's value."""
    return sum(c * m for c, m in zip(poly, monomials(b, s), strict=True))


def add(left: Poly, right: Poly, sign: int = 1) -> Poly:
    """``left + sign * right``."""
    if sign > 0:
        return tuple(map(operator.add, left, right))
    return tuple(map(operator.sub, left, right))


def fit(values: Mapping[Point, int], *, with_batch: bool) -> Poly:
    """The simplest polynomial with integer coefficients through ``values``.

    A storage is one tensor, so a product of sizes: one term. A few are padded by a constant: two.

    Args:
        values: value at each point.
        with_batch: whether terms in b are allowed.

    Raises:
        WitnessError: there is none.
    """
    terms = [i for i, (of_b, _) in enumerate(_EXPONENTS) if with_batch or not of_b]
    rows = [(monomials(*point), value) for point, value in values.items()]
    for first in terms:
        quotients = {divmod(value, row[first]) for row, value in rows}
        if len(quotients) == 1 and next(iter(quotients))[1] == 0:
            return _poly({first: next(iter(quotients))[0]})
    for first, second in sorted(combinations(terms, 2), key=lambda pair: pair[1] == _RARE):
        found = _two_terms(rows, first, second)
        if found is not None:
            return found
    raise WitnessError(f"sizes that are no polynomial of batch and sequence: {dict(values)}")


def _two_terms(rows: Sequence[tuple[Sequence[int], int]], first: int, second: int) -> Poly | None:
    (row0, value0), (row1, value1), *_ = rows
    divisor = row0[first] * row1[second] - row1[first] * row0[second]
    if not divisor:
        return None
    x, rest_x = divmod(value0 * row1[second] - value1 * row0[second], divisor)
    y, rest_y = divmod(row0[first] * value1 - row1[first] * value0, divisor)
    exact = all(row[first] * x + row[second] * y == value for row, value in rows)
    return _poly({first: x, second: y}) if exact and not rest_x and not rest_y else None


def _poly(terms: Mapping[int, int]) -> Poly:
    return tuple(terms.get(i, 0) for i in range(len(_EXPONENTS)))


def envelope(polys: Sequence[Poly], *, with_batch: bool, sequences: tuple[int, int]) -> list[Poly]:
    """Polynomials among ``polys`` that are the largest somewhere.

    Args:
        polys: candidates.
        with_batch: whether b may be other than 1.
        sequences: smallest and largest s.
    """
    unique = undominated(polys)
    if len(unique) == 1:
        return unique
    low, high = sequences
    kept: dict[Poly, None] = {}
    for s in [low, high, *(s for s in _SEQUENCES if low < s < high)]:
        for b in _BATCHES if with_batch else (1,):
            kept[max(unique, key=lambda poly: at(poly, b, s))] = None
    return list(kept)


def undominated(polys: Iterable[Poly]) -> list[Poly]:
    """Without those that another exceeds in every coefficient."""
    kept: list[Poly] = []
    for poly in sorted(dict.fromkeys(polys), reverse=True, key=sum):
        if not any(all(map(operator.ge, other, poly)) for other in kept):
            kept.append(poly)
    return kept
