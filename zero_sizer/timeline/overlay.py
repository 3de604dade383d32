"""Memory that ZeRO holds at every place of a step: parameters, gradients, buckets, copies.

Neither the batch nor the sequence changes it. What does not depend on the number of ranks either
(what is gathered when, which gradients are reduced together) is followed once and kept.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import chain
from operator import add
from typing import NamedTuple

from zero_sizer.timeline.program import Layout, Placed, Program, program_of
from zero_sizer.util.identity import Identity
from zero_sizer.util.records import dataclass
from zero_sizer.zero import forms, gradient_flow, replay
from zero_sizer.zero.forms import Form, Forms
from zero_sizer.zero.gradient_flow import Flow, Rules, Tensors
from zero_sizer.zero.highest import Highest
from zero_sizer.zero.reduction import Held, Own, Reduction, Share
from zero_sizer.zero.secondary import Secondary
from zero_sizer.zero.trace import Gathering, Limits


@dataclass(frozen=True, kw_only=True)
class Zero:
    """Parameters, and the rules of gathering and reduction.

    Attributes:
        tensors: the trainable tensors by group.
        persistent: which parameters stay gathered.
        kept: see ``zero.trace.Trace``.
        recomputed: the same.
        lent: the same.
        views: see ``zero.trace.Gathering``.
        itemsizes: bytes per element of each parameter.
        gather_itemsizes: the same while it is gathered, where it is cast for that (torch_autocast).
        ranks: ranks that parameters are gathered from; 0 where none are.
        is_parked: partitions lie on the host or NVMe.
        secondary: see ``zero.trace.Trace``.
        limits: of gathering.
        rules: of reduction.
        share: this rank's side of reduction.
        is_first: see ``trace.Trace``.
        others: further ranks'; at every place the one that holds most is meant.
    """

    tensors: Tensors
    persistent: tuple[bool, ...]
    kept: frozenset[int]
    recomputed: frozenset[int]
    lent: frozenset[int]
    views: frozenset[int]
    itemsizes: tuple[int, ...]
    gather_itemsizes: tuple[int, ...]
    ranks: int
    is_parked: bool
    secondary: Secondary
    limits: Limits
    rules: Rules
    share: Share
    is_first: bool = False
    others: tuple[Own, ...] = ()

    def __hash__(self) -> int:
        """Hash of what is short: long tuples are mostly the same objects, and soon compared."""
        short = (self.ranks, self.is_parked, self.is_first, self.secondary.ranks, self.others)
        return hash((short, self.limits, self.rules, self.share))


class HeldAt(NamedTuple):
    """Bytes that ZeRO holds at one place, while the step runs or at its end."""

    label: str
    gathered: int
    held: Held


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

    values: Sequence[int]
    within: Placed
    end: Placed
    apart: Placed
    most: int


class Pass:
    """A forward or backward: what ZeRO holds while each step runs (even columns) and at its end.

    A column is one step position of one part, over the part's blocks.

    Args:
        gathered: parameters; None where none are gathered.
        held: gradients; bytes alone where they are the same everywhere.
        spans: where the columns lie.

    Attributes:
        bound: no place holds more.
    """

    def __init__(self, gathered: Side | None, held: Side | int, spans: Sequence[slice]) -> None:
        most = held if isinstance(held, int) else held.most
        self.bound = most + (gathered.most if gathered is not None else 0) if spans else 0
        self._gathered = gathered
        self._held = held
        self._spans = spans
        self._columns: dict[int, tuple[Sequence[int], int]] = {}

    def most(self, column: int) -> int:
        """The most that is held at any block of a column."""
        return self._column(column)[1]

    def highest_beside(self, column: int, first: int, slope: int) -> tuple[int, int]:
        """Bytes and block of a column's highest, the first of equals.

        Args:
            column: which.
            first: what lies beside ZeRO's at the first block.
            slope: what each further block adds to that.
        """
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


class Overlay:
    """Bytes that ZeRO holds at every place of a layout.

    Attributes:
        forward: in the order of the parts.
        backward: in the order in which parts run, the last first.
        last_gathered: gathered bytes at the end.
        epilogue: highest after the last gradient.
        per_rank: bytes that one more rank adds at most (stage 3: padding).
    """

    def __init__(self, layout: Layout, zero: Zero) -> None:
        self.per_rank = 0
        self._program = program_of(layout)
        self._zero = zero
        self._reduction = _reduction(self._program, zero, zero.share)
        others = map(self._reduction.of_rank, zero.others)
        flow = _flow(Identity(self._program), zero.tensors, zero.rules)
        self._highest = Highest(flow, [self._reduction, *others])
        forward, backward = self._gathered = self._gathered_sides()
        program = self._program
        self.forward = Pass(forward, self._highest.start.total, program.forward_spans)
        values = program.held_bytes(self._highest)
        held = Side(values, *program.held, max(values))
        self.backward = Pass(backward, held, program.backward_spans)
        self.last_gathered = 0
        if backward is not None and backward.end.numbers:
            self.last_gathered = backward.values[backward.end.numbers[-1]]
        self.epilogue = self._highest.epilogue

    def at(self, column: int, block: int, *, is_backward: bool) -> HeldAt:
        """Bytes held at a place, for a reader."""
        found = self.backward if is_backward else self.forward
        index, is_end = found.index(column, block), column % 2
        lying = self._gathered[is_backward]
        within, end, alone = (
            (0, 0, 0)
            if lying is None
            else (lying.values[of.numbers[index]] for of in (lying.within, lying.end, lying.apart))
        )
        if not is_backward:
            label = self._program.forward[index].label
            return HeldAt(label, end if is_end else within, self._highest.start)
        label = self._program.backward[index].label
        before, hook, after = self._program.held_at(self._highest, index)
        if not is_end:
            return HeldAt(label, within, before)
        is_hook = alone + hook.total > end + after.total
        return HeldAt(label, alone, hook) if is_hook else HeldAt(label, end, after)

    def left(self) -> tuple[int, ...]:
        """Elements of the gradients' storages that outlive backward (``Reduction.left``)."""
        return self._reduction.left()

    def _gathered_sides(self) -> tuple[Side | None, Side | None]:
        """Parameters in forward and in backward."""
        zero, program = self._zero, self._program
        if not zero.ranks:
            return None, None
        levels = _levels(Identity(program), _gathering_of(zero))
        copied = max(*zero.share.cast_itemsizes, zero.rules.itemsize)
        self.per_rank = levels.per_rank + copied * self._reduction.flow.most_together
        return _gathered_at(Identity(levels), zero.ranks, zero.secondary.ranks)


class _Unions:
    """Unions of sets of forms; of equal blocks they are made once."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, ...], tuple[Forms, tuple[Forms, ...]]] = {}

    def of(self, *sets: Forms) -> Forms:
        """All forms of these."""
        key = tuple(map(id, sets))
        found = self._known.get(key)
        if found is None:  # the sets are kept, so that they stay themselves
            found = self._known[key] = frozenset().union(*sets), sets
        return found[0]


class _Levels:
    """Gathered parameters at every place, for any number of ranks.

    What is held only while a place's modules are fetched meets the activations that the place
    before it ends with, where both are of the same pass.
    """

    def __init__(self, program: Program, visits: Sequence[tuple[Forms, Forms]]) -> None:
        places, backward = (*program.forward, *program.backward), len(program.forward)
        together, numbers = _Unions(), dict[Forms, int]()
        level, done = forms.NOTHING, 0
        levels: list[Forms] = []
        ends: list[Forms] = []
        own: list[Forms] = []
        for number, place in enumerate(places):
            begun = done + len(place.visits)
            fetching = together.of(*chain.from_iterable(visits[done:begun]))
            done = begun + len(place.ends)
            level = visits[begun - 1][1] if place.visits else level
            if number not in (0, backward):
                ends[-1] = together.of(ends[-1], fetching)
                fetching = forms.NEVER
            levels.append(together.of(level, fetching))
            level = visits[done - 1][1] if place.ends else level
            ends.append(level)
            own.append(level)
        rows = [[numbers.setdefault(f, len(numbers)) for f in row] for row in (levels, ends, own)]
        places_of: dict[Form, int] = {}  # levels share most of their forms
        self._levels = [
            tuple([places_of.setdefault(form, len(places_of)) for form in found])
            for found in numbers
        ]
        self._forms = tuple(places_of)
        self.per_rank = max([form.per_rank for form in self._forms], default=0)
        self.forward = _placed((row[:backward] for row in rows), program.forward_spans)
        self.backward = _placed((row[backward:] for row in rows), program.backward_spans)

    def bytes_at(self, ranks: int, group: int) -> tuple[Side, Side]:
        """Bytes in forward and in backward."""
        padding = forms.Padding(ranks, group)
        sizes = [form.at(padding) for form in self._forms]
        values = [max([sizes[place] for place in level]) for level in self._levels]
        return _side(values, self.forward), _side(values, self.backward)


def _placed(rows: Iterable[list[int]], spans: Sequence[slice]) -> tuple[Placed, Placed, Placed]:
    within, end, apart = (Placed(row, spans) for row in rows)
    return within, end, apart


def _side(values: Sequence[int], placed: tuple[Placed, Placed, Placed]) -> Side:
    within, end, apart = placed
    return Side(values, within, end, apart, max(within.most(values), end.most(values)))


@lru_cache(maxsize=256)
def _gathered_at(levels: Identity, ranks: int, group: int) -> tuple[Side, Side]:
    return levels.of.bytes_at(ranks, group)  # type: ignore[no-any-return]


def _gathering_of(zero: Zero) -> Gathering:
    parts = (zero.tensors.numels, zero.itemsizes, zero.gather_itemsizes)
    places, kept = (zero.ranks == 1, zero.is_parked), (zero.kept, zero.recomputed, zero.lent)
    more = (zero.secondary, zero.views, zero.is_first)
    return Gathering(zero.limits, parts, zero.persistent, places, kept, *more)


@lru_cache(maxsize=256)
def _levels(program: Identity, how: Gathering) -> _Levels:
    trace = how.trace(*program.of.visits)
    return _Levels(program.of, replay.gathered(trace, how.limits, program.of.blocks))


@lru_cache(maxsize=256)
def _cut(program: Identity, how: Gathering) -> tuple[tuple[int, ...], tuple[int, ...]]:
    visits, forward = program.of.visits
    trace = how.trace(visits, forward)
    return replay.secondaries_made(trace, how.limits, forward, program.of.blocks)


def secondaries_made(layout: Layout, zero: Zero, *, in_forward: bool) -> tuple[int, ...]:
    """Parameters whose secondary partitions forward makes, or both passes, in that order."""
    forward, both = _cut(Identity(program_of(layout)), _gathering_of(zero))
    return forward if in_forward else both


def _reduction(program: Program, zero: Zero, share: Share) -> Reduction:
    return _reduction_of(Identity(program), zero.tensors, zero.rules, share)


@lru_cache(maxsize=256)
def _reduction_of(program: Identity, tensors: Tensors, rules: Rules, share: Share) -> Reduction:
    return Reduction(_flow(program, tensors, rules), tensors, rules, share)


@lru_cache(maxsize=64)
def _flow(program: Identity, tensors: Tensors, rules: Rules) -> Flow:
    return gradient_flow.flow(tensors, program.of.order, rules)


@lru_cache(maxsize=256)
def _overlay(layout: Identity, zero: Identity) -> Overlay:
    return Overlay(layout.of, zero.of)


def overlay_of(layout: Layout, zero: Zero) -> Overlay:
    """Overlay of a layout; ``interned`` makes equal ``zero`` the same."""
    return _overlay(Identity(layout), Identity(zero))


@lru_cache(maxsize=1024)
def interned(zero: Zero) -> Zero:
    """The first met of all that are equal."""
    return zero
