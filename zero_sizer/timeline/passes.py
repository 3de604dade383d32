"""Bytes that ZeRO holds in one pass, column by column: where most is held beside activations.

A column is one step position of one part, over the part's blocks: while the step runs (even
columns), and at its end.
"""

from collections.abc import Sequence
from operator import add
from typing import NamedTuple, Protocol

from zero_sizer.timeline.program import Placed, Values


class Side(NamedTuple):
    """Bytes of one kind at the places of a pass.

    Attributes:
        values: those that there are.
        within: which of them at each place.
        end: at its end.
        apart: at its end as well, at another time: of parameters before the next modules are
            fetched, of gradients after that.
    """

    values: Values
    within: Placed
    end: Placed
    apart: Placed


class Columns(Protocol):
    """Bytes at the places of a pass."""

    def highest_beside(self, columns: tuple[int, ...], first: int, slope: int, best: int) -> int:
        """The highest total of some columns, all even or all odd; ``best`` where none is higher.

        Args:
            columns: which.
            first: what lies beside at the first block.
            slope: what each further block adds to that.
            best: a total that is known.
        """
        ...

    def place_beside(self, column: int, first: int, slope: int) -> tuple[int, int]:
        """Bytes and block of a column's highest, the first of equals."""
        ...


class Pass:
    """A forward or backward: what ZeRO holds while each step runs and at its end.

    Args:
        columns: the bytes.
        bound: no place holds more.
        spans: where the columns lie.
    """

    def __init__(self, columns: Columns, bound: int, spans: Sequence[slice]) -> None:
        self.columns = columns
        self.bound = bound if spans else 0
        self._spans = spans

    def index(self, column: int, block: int) -> int:
        """The place's number in the order of the pass."""
        span = self._spans[column // 2]
        return int(span.start + block * span.step)


class Listed:
    """Bytes at the places of a pass, listed a column at a time.

    Args:
        gathered: parameters'; None where none are gathered.
        held: gradients'; a number where they are the same everywhere.
        spans: where the columns lie.
    """

    def __init__(self, gathered: Side | None, held: Side | int, spans: Sequence[slice]) -> None:
        self._gathered = gathered
        self._held = held
        self._spans = spans
        self._columns: dict[int, tuple[Sequence[int], int]] = {}
        self._most: dict[tuple[int, ...], tuple[int, int]] = {}

    def highest_beside(self, columns: tuple[int, ...], first: int, slope: int, best: int) -> int:
        """See ``Columns``."""
        if self.most_beside(columns, slope) + first > best:
            found = [self.place_beside(column, first, slope)[0] for column in columns]
            best = max([best, *found])
        return best

    def place_beside(self, column: int, first: int, slope: int) -> tuple[int, int]:
        """See ``Columns``."""
        totals, most = self.column(column)
        if not slope:
            return first + most, totals.index(most)
        together = list(map(add, totals, range(first, first + slope * len(totals), slope)))
        highest = max(together)
        return highest, together.index(highest)

    def most_beside(self, columns: tuple[int, ...], slope: int) -> int:
        """Bytes that no place of some columns exceeds; ``slope`` more for each further block."""
        found = self._most.get(columns)
        if found is None:
            each = [self.column(column) for column in columns]
            last = max([len(values) for values, _ in each]) - 1
            found = self._most[columns] = max([most for _, most in each]), last
        return found[0] + max(slope * found[1], 0)

    def column(self, column: int) -> tuple[Sequence[int], int]:
        """Bytes at each block of a column, and the highest of them."""
        found = self._columns.get(column)
        if found is None:
            values = self._listed(column // 2, is_end=bool(column % 2))
            found = self._columns[column] = values, max(values)
        return found

    def _listed(self, number: int, *, is_end: bool) -> Sequence[int]:
        gathered, held = self._gathered, self._held
        if isinstance(held, int):
            if gathered is None:
                return [held] * len(range(*self._spans[number].indices(self._spans[number].stop)))
            return [size + held for size in _column_of(gathered, number, is_end)]
        gradients = _column_of(held, number, is_end)
        if gathered is None:
            return gradients
        totals = map(add, _column_of(gathered, number, is_end), gradients)
        if not is_end:
            return list(totals)
        # a fetch comes when the hook is over
        alone = gathered.apart.column(number, gathered.values)
        hooks = map(add, alone, gradients)
        after = held.apart.column(number, held.values)
        lying = gathered.end.column(number, gathered.values)
        return list(map(max, hooks, map(add, lying, after)))

    def at(self, column: int, block: int) -> int:
        """Bytes at one block of a column."""
        span = self._spans[column // 2]
        place, is_end = span.start + block * span.step, column % 2
        gathered, held, lying = self._gathered, self._held, 0
        if gathered is not None:
            lying = gathered.values[(gathered.end if is_end else gathered.within).numbers[place]]
        if isinstance(held, int):
            return lying + held
        gradients = held.values[(held.end if is_end else held.within).numbers[place]]
        if gathered is None or not is_end:
            return lying + gradients
        alone = gathered.values[gathered.apart.numbers[place]]
        return max(alone + gradients, lying + held.values[held.apart.numbers[place]])


def _column_of(side: Side, number: int, is_end: bool) -> Sequence[int]:
    return (side.end if is_end else side.within).column(number, side.values)
