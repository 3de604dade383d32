"""Sizes of models that look at an image window by window.

How many operators run depends on how many windows there are, so images of a few numbers of equal
windows are traced. What is held at the end of each step is a polynomial in that number: so much for
itself, so much for each window, so much for each pair of them where others of the model's blocks
look at the whole image. A real image's windows differ: what is held for each of them adds up over
their patches, and over the squares of these.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import combinations

from zero_sizer.errors import WitnessError
from zero_sizer.models.stacked import padded
from zero_sizer.models.stacked_row import Stacked
from zero_sizer.tracing import products
from zero_sizer.tracing.fitted import FittedSection, FittedStack, FittedStep
from zero_sizer.tracing.products import Product
from zero_sizer.tracing.symbolic import Poly

WINDOW = "window"
COUNTS = (2, 3, 4)
"""Windows of an image at which it is traced."""
MOST_COPIES = 2**13
"""Of a product of one window's lengths: as many as pairs of windows in a batch, some each."""
POWERS = 3
"""Of the number of windows: 0, 1 and 2."""
_PATCHES, _SQUARES, _SIDE = "patches", "window_squares", "grid_rows"
_OF_IMAGE = {_SIDE: "grid_columns"}  # windows lie in a row
_COUNT = "windows"
_LENGTHS = (WINDOW, _SIDE, _PATCHES, _COUNT, *_OF_IMAGE.values())
_PATCHES_PER_TOKEN = 4
_LEAST = dict.fromkeys(("hidden", "ffn", "vocab", "tower_hidden", "tower_ffn", "patch"), 1024)
"""Widths that every such model has."""
_OF_WHOLE = (_PATCHES, padded(_PATCHES), _SQUARES, _COUNT, *_OF_IMAGE.values())


def of_one(widths: Mapping[str, int]) -> dict[str, int]:
    """Widths without lengths of a whole image, which those of its windows stand for."""
    return {name: size for name, size in widths.items() if name not in _OF_WHOLE}


def products_of(row: Stacked, measures: Mapping[str, int]) -> tuple[Product, ...]:
    """Every product that a size may be, of one window's lengths.

    Args:
        row: whose widths.
        measures: lengths of the feed, by name.
    """
    lengths = {
        stack: tuple((*rest, WINDOW) for *rest, _ in of) for stack, of in row.lengths.items()
    }
    found = products.products_of(replace(row, lengths=lengths), of_one(measures))
    return tuple(one for one in found if padded(WINDOW) not in one)


def named(of_window: Sequence[Product]) -> tuple[Product | None, ...]:
    """Products of one window's lengths, times each power of the number of windows.

    In lengths of a whole image; None where nothing that a model makes is of that size.

    Args:
        of_window: that a size may be, of one window's lengths.
    """
    return tuple(_named(one, power) for power in range(POWERS) for one in of_window)


def _named(one: Product, power: int) -> Product | None:
    rest, squared = tuple(n for n in one if n != WINDOW), one.count(WINDOW)
    if power == 0:
        return one
    if power == 2:
        return (_PATCHES, _PATCHES, *rest) if squared == power else None
    if squared:
        return (*((_PATCHES,), (_SQUARES,))[squared - 1], *rest)
    if _SIDE in rest:
        return tuple(_OF_IMAGE.get(name, name) for name in rest)
    return (_COUNT, *rest)


def together(found: Mapping[int, FittedStack], names: Sequence[Product | None]) -> FittedStack:
    """One step for any number of windows, from those of ``COUNTS``.

    Args:
        found: number of windows -> the step, in products of one window's lengths.
        names: the products of ``named``.

    Raises:
        WitnessError: the steps differ in more than sizes, or sizes are no such polynomials.
    """
    stacks = [found[count] for count in COUNTS]
    of = _Polynomials(names, len(names) // POWERS)
    rows = []
    for same in zip(*(stack.rows for stack in stacks), strict=True):
        if len({(block, is_backward) for block, is_backward, _ in same}) > 1:
            raise WitnessError("sections that depend on the number of windows")
        rows.append((*same[0][:2], of.section([section for *_, section in same])))
    late = {block: of.size([s.late[block] for s in stacks]) for block in stacks[0].late}
    return FittedStack(rows=tuple(rows), late=late)


def extremes(levels: Sequence[Poly], names: Sequence[Product | None]) -> list[Poly]:
    """Sizes that may be the highest, of those that a walk through windows passes, in their order.

    Levels climb or fall from window to window by equal steps: those between two others are never
    the highest of all, wherever the model is.

    Args:
        levels: coefficients of monomials of tokens times products.
        names: those products.
    """
    found = list(dict.fromkeys(levels))
    for level in tuple(found):
        others = [other for other in found if other != level]
        if any(_covers(other, level, names) for other in others) or any(
            _lies_under(level, one, other) for one, other in combinations(others, 2)
        ):
            found.remove(level)
    return found


def _covers(other: Poly, level: Poly, names: Sequence[Product | None]) -> bool:
    """Whether ``other`` is at least ``level`` in every model with widths of ``_LEAST``."""
    more: dict[int, Fraction] = {}
    less: dict[int, int] = {}
    for index, (left, right) in enumerate(zip(other, level, strict=True)):
        if left > right:
            more[index] = Fraction(left - right)
        elif left < right:
            less[index] = right - left
    return all(_is_made_up(index, size, more, names) for index, size in less.items())


def _is_made_up(
    index: int, size: int, more: dict[int, Fraction], names: Sequence[Product | None]
) -> bool:
    """Takes what a size lacks from sizes that are larger, where they are."""
    for other, rest in more.items():
        times = _times(other, index, names)
        if times and rest * times >= size:
            more[other] = rest - size / times
            return True
    return False


def _times(large: int, small: int, names: Sequence[Product | None]) -> Fraction | None:
    """How often one product goes into another at least, with their monomials of tokens.

    A sequence has a token for every four patches of its images.
    """
    tokens, one = divmod(large, len(names))
    of_small, other = divmod(small, len(names))
    rest, extra = list(names[other] or ()), 1
    for name in names[one] or ():
        if name in rest:
            rest.remove(name)
        else:
            extra *= _LEAST.get(name, 1)
    sequences = tokens - of_small
    lengths = sum(name in _LENGTHS for name in rest)
    if sequences < lengths or lengths < len(rest):
        return None
    return Fraction(extra, _PATCHES_PER_TOKEN**lengths)


def alike(levels: Sequence[Sequence[Poly]]) -> list[tuple[Poly, ...]]:
    """The extremes of one step at several numbers of windows or images, by their order in time.

    Raises:
        WitnessError: they are not as many everywhere.
    """
    if len({len(row) for row in levels}) > 1:
        raise WitnessError(f"{sorted(map(len, levels))} peaks of one step")
    return list(zip(*levels, strict=True))


def _lies_under(level: Poly, one: Poly, other: Poly) -> bool:
    """Whether a mean of ``one`` and ``other``, of any weights, is at least ``level`` throughout."""
    low, high = Fraction(0), Fraction(1)  # weights of ``one``
    for wanted, left, right in zip(level, one, other, strict=True):
        if left == right:
            if wanted > left:
                return False
        elif left > right:
            low = max(low, Fraction(wanted - right, left - right))
        else:
            high = min(high, Fraction(right - wanted, right - left))
        if low > high:
            return False
    return True


class _Polynomials:
    """Sizes as polynomials in the number of windows.

    A size is coefficients of monomials times products; here each product has ``POWERS`` places.
    """

    def __init__(self, names: Sequence[Product | None], count: int) -> None:
        self._names = names
        self._count = count

    def section(self, found: Sequence[FittedSection]) -> FittedSection:
        """One section."""
        if len({tuple((s.runs, s.completes) for s in section.steps) for section in found}) > 1:
            raise WitnessError("steps that depend on the number of windows")
        steps = tuple(
            FittedStep(
                same[0].runs,
                same[0].completes,
                self._peaks([step.peaks for step in same]),
                self.size([step.end for step in same]),
            )
            for same in zip(*(section.steps for section in found), strict=True)
        )
        flops = self.size([section.flops for section in found])
        return FittedSection(steps, flops, self.size([section.gradient for section in found]))

    def size(self, values: Sequence[Poly]) -> Poly:
        """One size."""
        found = self._through(values)
        if found is None:
            raise WitnessError("levels that are no polynomial in the number of windows")
        return found

    def _peaks(self, levels: Sequence[Sequence[Poly]]) -> tuple[Poly, ...]:
        """Polynomials through levels of one place in time each."""
        rows = alike(levels)
        return tuple(extremes([self.size(row) for row in rows], self._names))

    def _through(self, values: Sequence[Poly]) -> Poly | None:
        count = self._count
        found = [0] * (len(values[0]) * POWERS)
        for index, of_counts in enumerate(zip(*values, strict=True)):
            if not any(of_counts):
                continue
            terms = _quadratic(of_counts)
            if terms is None:
                return None
            monomial, number = divmod(index, count)
            for power, term in enumerate(terms):
                place = power * count + number
                if term and self._names[place] is None:
                    return None
                found[monomial * POWERS * count + place] = term
        return tuple(found)


def _quadratic(values: Sequence[int]) -> tuple[int, int, int] | None:
    """Coefficients of 1, n and n * n, from the values at ``COUNTS``."""
    two, three, four = values
    square, rest = divmod(four - 2 * three + two, 2)
    if rest:
        return None
    each = three - two - 5 * square
    return two - 2 * each - 4 * square, each, square
