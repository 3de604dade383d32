"""Bytes that ZeRO holds in one pass, column by column: where most is held beside activations."""

from collections.abc import Sequence
from functools import lru_cache
from operator import add
from typing import Any, NamedTuple

from zero_sizer.timeline.program import Placed, Program, Values
from zero_sizer.util.identity import Identity
from zero_sizer.zero.copies import Costs, ceilings
from zero_sizer.zero.gradient_flow import Flow
from zero_sizer.zero.highest import Highest


class Side(NamedTuple):
    """Bytes of one kind at the places of a pass.

    Attributes:
        values: those that there are.
        within: which of them at each place.
        end: at its end.
        apart: at its end as well, at another time: of parameters before the next modules are
            fetched, of gradients after that.
        most: no place has more.
    """

    values: Values
    within: Placed
    end: Placed
    apart: Placed
    most: int


_End = tuple[int, int, int]
"""Bytes, and the first and the last block that hold so many."""
_FEW = 16  # kinds of places in a column, up to which they are told apart


class Kinds:
    """Places of a pass that hold as much as each other, whatever the number of ranks.

    Args:
        gathered: which gathered bytes there are: within, at the end, and apart (``Side``).
        held: which of the gradients' there are; None: the same everywhere.
        alike: the first of those that are as many.
        spans: where the columns lie.
    """

    def __init__(
        self,
        gathered: tuple[Placed, Placed, Placed],
        held: tuple[Placed, Placed, Placed] | None,
        alike: Sequence[int],
        spans: Sequence[slice],
    ) -> None:
        self._gathered = gathered
        self._held = held
        self._alike = alike
        self._spans = spans
        self._columns: dict[int, list[_Kind]] = {}
        self._several: dict[tuple[int, ...], list[_Kind]] = {}

    def of(self, columns: tuple[int, ...]) -> list["_Kind"]:
        """Kinds of the places of some columns, all even or all odd; none where one has many."""
        found = self._several.get(columns)
        if found is None:
            each = [self._of_one(column) for column in columns]
            found = self._several[columns] = _together(each) if all(each) else []
        return found

    def _of_one(self, column: int) -> list["_Kind"]:
        found = self._columns.get(column)
        if found is None:
            found = self._columns[column] = self._column(column)
        return found

    def _column(self, column: int) -> list["_Kind"]:
        span, is_end = self._spans[column // 2], column % 2
        within, end, apart = (placed.numbers[span] for placed in self._gathered)
        rows = [end if is_end else within]
        if self._held is not None:
            alike = self._alike
            before, hook, after = ([alike[n] for n in of.numbers[span]] for of in self._held)
            rows = [apart, hook, end, after] if is_end else [within, before]
        kinds = list(zip(*rows, strict=True))
        lasts = dict(zip(kinds, range(len(kinds)), strict=True))
        if len(lasts) > _FEW:
            return []
        return [(kind, kinds.index(kind), last) for kind, last in lasts.items()]


_Kind = tuple[tuple[int, ...], int, int]
"""Which bytes there are at such places, and the first and the last block that has one."""


def _together(columns: Sequence[list[_Kind]]) -> list[_Kind]:
    """The kinds of all columns."""
    if len(columns) == 1:
        return columns[0]
    found: dict[tuple[int, ...], tuple[int, int]] = {}
    for kinds in columns:
        for kind, first, last in kinds:
            least, most = found.get(kind, (first, last))
            found[kind] = min(least, first), max(most, last)
    return [(kind, *blocks) for kind, blocks in found.items()]


class Asked(Sequence[int]):
    """Bytes of which ``Program.held`` says which there are, each worked out when asked for.

    Args:
        highest: the ranks.
        start: bytes before the first gradient.
        count: how many gradients.
    """

    def __init__(self, highest: Highest, start: int, count: int) -> None:
        self._totals = (highest.before_total, highest.hook_total, highest.after_total)
        self._count = count
        self._known = {0: start}

    def __len__(self) -> int:
        return 1 + 3 * self._count

    def __getitem__(self, source: Any) -> Any:
        found = self._known.get(source)
        if found is None:
            kind, position = divmod(source - 1, self._count)
            found = self._known[source] = self._totals[kind](position)
        return found


class Late:
    """Bytes of gradients that ranks share out, worked out where they may be the highest.

    Args:
        program: the places.
        flow: the gradients.
        highest: the ranks.
        costs: the most that a reduction costs.
        start: bytes before the first gradient.

    Attributes:
        most: no place has more.
        values: exact ones.
    """

    def __init__(
        self, program: Program, flow: Flow, highest: Highest, costs: Costs, start: int
    ) -> None:
        self._ceilings = _ceilings_of(Identity(program), Identity(flow), costs)
        self._own = highest.most_own
        self.most = self._ceilings.most + self._own
        self.values = Asked(highest, start, len(flow.hook))

    def highest_beside(self, columns: tuple[int, ...], first: int, slope: int, best: int) -> int:
        """The highest total of some columns; ``best`` where none is higher than that.

        Args:
            columns: which.
            first: what lies beside at the first block.
            slope: what each further block adds to that.
            best: a total that is known.
        """
        ceilings, own = self._ceilings, self._own
        if ceilings.most_beside(columns, slope) + first + own > best:
            for column in columns:
                best = self._highest_of(column, first, slope, best)
        return best

    def _highest_of(self, column: int, first: int, slope: int, best: int) -> int:
        values, most = self._ceilings.column(column)
        least = best - self._own - first  # a place that may be higher has more than that
        if most + max(slope * (len(values) - 1), 0) <= least:
            return best
        totals = list(map(add, values, range(0, slope * len(values), slope))) if slope else values
        places = [(total, block) for block, total in enumerate(totals) if total > least]
        sources = self._ceilings.sources(column)
        for total, block in sorted(places, reverse=True):
            if total <= best - self._own - first:
                break
            best = max(best, self.values[sources[block]] + first + slope * block)
        return best


class _Ceilings:
    """Bytes that no rank of any number exceeds beside its own, at places of a program."""

    def __init__(self, program: Program, flow: Flow, costs: Costs) -> None:
        before, _, after = flow.totals
        hooks = ceilings(Identity(flow), costs).hooks
        self._values = program.held_bytes(sum(flow.start), before, hooks, after)
        self._placed = program.held
        self._spans = program.backward_spans
        self._columns: dict[int, tuple[Sequence[int], int]] = {}
        self._most: dict[tuple[int, ...], tuple[int, int]] = {}
        self.most = max(self._values)

    def column(self, column: int) -> tuple[Sequence[int], int]:
        """Ceilings of one column, and the highest of them."""
        found = self._columns.get(column)
        if found is None:
            values = self._placed[column % 2].column(column // 2, self._values)
            found = self._columns[column] = values, max(values)
        return found

    def most_beside(self, columns: tuple[int, ...], slope: int) -> int:
        """Bytes that no place of some columns exceeds; ``slope`` more for each further block."""
        found = self._most.get(columns)
        if found is None:
            each = [self.column(column) for column in columns]
            last = max([len(values) for values, _ in each]) - 1
            found = self._most[columns] = max([most for _, most in each]), last
        return found[0] + max(slope * found[1], 0)

    def sources(self, column: int) -> Sequence[int]:
        """Which of ``Program.held`` there are in one column."""
        return self._placed[column % 2].numbers[self._spans[column // 2]]


@lru_cache(maxsize=512)
def _ceilings_of(program: Identity, flow: Identity, costs: Costs) -> _Ceilings:
    return _Ceilings(program.of, flow.of, costs)


class Pass:
    """A forward or backward: what ZeRO holds while each step runs (even columns) and at its end.

    A column is one step position of one part, over the part's blocks.

    Args:
        gathered: parameters; None where none are gathered.
        held: gradients; bytes alone where they are the same everywhere.
        spans: where the columns lie.
        late: the gradients' bytes where they are worked out late.
        kinds: which places hold as much as each other; None: they may all differ.

    Attributes:
        bound: no place holds more.
    """

    def __init__(
        self,
        gathered: Side | None,
        held: Side | int,
        spans: Sequence[slice],
        late: Late | None = None,
        kinds: Kinds | None = None,
    ) -> None:
        most = held if isinstance(held, int) else held.most
        self.bound = most + (gathered.most if gathered is not None else 0) if spans else 0
        self._gathered = gathered
        self._held = held
        self._spans = spans
        self.late = late
        self._kinds = kinds
        self._ends: dict[tuple[int, ...], list[_End]] = {}
        self._most: dict[tuple[int, ...], int] = {}
        self._columns: dict[int, tuple[Sequence[int], int]] = {}

    def most(self, columns: tuple[int, ...]) -> int:
        """The most that is held at any block of some columns (``Kinds.of``)."""
        found = self._most.get(columns)
        if found is None:
            ends = self._ends_at(columns)
            found = max(ends)[0] if ends else max([self._column(c)[1] for c in columns])
            self._most[columns] = found
        return found

    def _ends_at(self, columns: tuple[int, ...]) -> list["_End"]:
        """See ``_ends_of``."""
        found = self._ends.get(columns)
        if found is None:
            found = self._ends[columns] = self._ends_of(columns)
        return found

    def _ends_of(self, columns: tuple[int, ...]) -> list["_End"]:
        """Bytes of the columns' kinds of places, with the first and the last of each."""
        kinds = self._kinds.of(columns) if self._kinds is not None else ()
        lying: Values = self._gathered.values if self._gathered is not None else ()
        held = self._held
        if isinstance(held, int):
            return [(lying[a] + held, first, last) for (a, *_), first, last in kinds]
        there = held.values
        if not columns[0] % 2:
            return [(lying[a] + there[b], first, last) for (a, b), first, last in kinds]
        return [
            (max(lying[a] + there[b], lying[c] + there[d]), first, last)
            for (a, b, c, d), first, last in kinds
        ]

    def highest_beside(self, columns: tuple[int, ...], first: int, slope: int) -> int:
        """Bytes of the highest of some columns, of which ``most`` was asked.

        Args:
            columns: which.
            first: what lies beside ZeRO's at the first block.
            slope: what each further block adds to that.
        """
        ends = self._ends[columns]
        if not slope:
            return first + self._most[columns]
        if not ends:
            return max([self.place_beside(column, first, slope)[0] for column in columns])
        if slope > 0:
            return first + max([size + slope * last for size, _, last in ends])
        return first + max([size + slope * begin for size, begin, _ in ends])

    def place_beside(self, column: int, first: int, slope: int) -> tuple[int, int]:
        """Bytes and block of a column's highest, the first of equals (``highest_beside``)."""
        ends = self._ends_at((column,))
        if ends:
            if slope > 0:
                found = [(size + slope * last, -last) for size, _, last in ends]
            else:
                found = [(size + slope * begin, -begin) for size, begin, _ in ends]
            highest, place = max(found)
            return first + highest, -place
        totals, most = self._column(column)
        if not slope:
            return first + most, totals.index(most)
        series = range(first, first + slope * len(totals), slope)
        together = list(map(add, totals, series))
        highest = max(together)
        return highest, together.index(highest)

    def _column(self, column: int) -> tuple[Sequence[int], int]:
        found = self._columns.get(column)
        if found is None:
            totals = self._totals(column // 2, is_end=bool(column % 2))
            found = self._columns[column] = (totals, max(totals))
        return found

    def _totals(self, number: int, *, is_end: bool) -> Sequence[int]:
        """Bytes of one position at all blocks."""
        gathered, held = self._gathered, self._held
        lying = () if gathered is None else _column_of(gathered, number, is_end)
        if isinstance(held, int):
            span = self._spans[number]
            lying = lying or (0,) * len(range(*span.indices(span.stop)))
            return [size + held for size in lying]
        gradients = _column_of(held, number, is_end)
        if gathered is None:
            return gradients
        totals = map(add, lying, gradients)
        if not is_end:
            return list(totals)
        alone = gathered.apart.column(number, gathered.values)
        after = held.apart.column(number, held.values)
        # a fetch comes when the hook is over
        return list(map(max, map(add, alone, gradients), map(add, lying, after)))

    def index(self, column: int, block: int) -> int:
        """The place's number in the order of the pass."""
        span = self._spans[column // 2]
        return int(span.start + block * span.step)


def _column_of(side: Side, number: int, is_end: bool) -> Sequence[int]:
    return (side.end if is_end else side.within).column(number, side.values)


@lru_cache(maxsize=256)
def kinds_of(levels: Identity, program: Identity, flow: Identity, is_backward: bool) -> Kinds:
    """Kinds of a pass's places, for any number of ranks (``levels`` is ``gathered.Levels``)."""
    if not is_backward:
        return Kinds(levels.of.forward, None, (), program.of.forward_spans)
    alike = _alike_in(flow)
    return Kinds(levels.of.backward, program.of.held, alike, program.of.backward_spans)


@lru_cache(maxsize=64)
def _alike_in(flow: Identity) -> list[int]:
    """Of ``Program.held_bytes`` the first of those that are alike on any number of ranks."""
    before, _, after = flow.of.totals
    hooks = flow.of.hook_kinds[1]
    firsts: dict[tuple[str, int], int] = {}
    rows = zip("bha", (before, hooks, after), strict=True)
    sources = [("start", 0), *((kind, value) for kind, row in rows for value in row)]
    return [firsts.setdefault(source, number) for number, source in enumerate(sources)]
