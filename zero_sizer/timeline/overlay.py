"""Memory that ZeRO holds at every place of a step: parameters, gradients, buckets, copies.

Neither the batch nor the sequence changes it. What does not depend on the number of ranks either
(what is gathered when, which gradients are reduced together) is followed once and kept.
"""

from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache
from itertools import chain
from operator import add
from typing import NamedTuple

from zero_sizer.timeline.program import Layout, Placed, Program, program_of
from zero_sizer.util.identity import Identity
from zero_sizer.util.records import dataclass
from zero_sizer.zero import forms, gradient_flow, replay
from zero_sizer.zero.forms import Compiled, Form, Forms
from zero_sizer.zero.gradient_flow import Flow, Rules, Scheme, Tensors
from zero_sizer.zero.highest import Highest
from zero_sizer.zero.reduction import (
    Costs,
    Held,
    Own,
    Reduction,
    Share,
    ceilings,
    most_costs,
)
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
        hooks: which of the gradients' bytes are worked out late; None: none are.
        kinds: which places hold as much as each other; None: they may all differ.

    Attributes:
        bound: no place holds more.
    """

    def __init__(
        self,
        gathered: Side | None,
        held: Side | int,
        spans: Sequence[slice],
        hooks: "Hooks | None" = None,
        kinds: "Kinds | None" = None,
    ) -> None:
        most = held if isinstance(held, int) else held.most
        self.bound = most + (gathered.most if gathered is not None else 0) if spans else 0
        self._gathered = gathered
        self._held = held
        self._spans = spans
        self.hooks = hooks
        self._kinds = kinds
        self._ends: dict[int, list[_End]] = {}
        self._columns: dict[int, tuple[Sequence[int], int]] = {}

    def most(self, column: int) -> int:
        """The most that is held at any block of a column."""
        ends = self._ends.get(column)
        if ends is None:
            ends = self._ends[column] = self._ends_of(column)
        return max(ends)[0] if ends else self._column(column)[1]

    def _ends_of(self, column: int) -> list["_End"]:
        """Bytes of a column's kinds of places, with the first and the last of each."""
        kinds = self._kinds.column(column) if self._kinds is not None else ()
        lying = self._gathered.values if self._gathered is not None else ()
        held = self._held
        if isinstance(held, int):
            return [(lying[a] + held, first, last) for (a, *_), first, last in kinds]
        there = held.values
        if not column % 2:
            return [(lying[a] + there[b], first, last) for (a, b), first, last in kinds]
        return [
            (max(lying[a] + there[b], lying[c] + there[d]), first, last)
            for (a, b, c, d), first, last in kinds
        ]

    def highest_beside(self, column: int, first: int, slope: int) -> tuple[int, int]:
        """Bytes and block of a column's highest, the first of equals.

        Args:
            column: which.
            first: what lies beside ZeRO's at the first block.
            slope: what each further block adds to that.
        """
        ends = self._ends.get(column)
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
        if is_end and self.hooks is not None:
            self.hooks.fill(number)
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
        self._columns: dict[int, list[tuple[tuple[int, ...], int, int]]] = {}

    def column(self, column: int) -> list[tuple[tuple[int, ...], int, int]]:
        """Kinds of a column's places, and the first and the last block of each; none if many."""
        found = self._columns.get(column)
        if found is None:
            found = self._columns[column] = self._column(column)
        return found

    def _column(self, column: int) -> list[tuple[tuple[int, ...], int, int]]:
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


class Hooks:
    """Bytes at hooks that reduce what ranks share, worked out where they may be the highest.

    Attributes:
        nothing: stands for those that are not worked out yet.
        most: no hook has more.
        values: of which ``Program.held`` says which there are.
    """

    def __init__(self, overlay: "Overlay") -> None:
        flow, zero = overlay.flow, overlay.zero
        costs = most_costs(flow, zero.tensors, zero.rules, zero.share)
        self._of = overlay
        self._ceilings = _ceilings_of(Identity(overlay.program), Identity(flow), costs)
        self._own = overlay.highest.most_own
        self._first = 1 + len(flow.hook)
        self.nothing = (-1,) * len(flow.hook)
        self.most = self._ceilings.most + self._own
        self.values: list[int] = []

    def fill(self, number: int) -> None:
        """Put the bytes of a column's hooks among all."""
        for source in self._ceilings.sources(number):
            self._value(source)

    def _value(self, source: int) -> int:
        found = self.values[source]
        if found < 0:
            found = self.values[source] = self._of.highest.hook_total(source - self._first)
        return found

    def highest_beside(self, number: int, first: int, slope: int, best: int) -> int:
        """The highest total of a column; ``best`` where none is higher than that.

        Args:
            number: of the column.
            first: what lies beside at the first block.
            slope: what each further block adds to that.
            best: a total that is known.
        """
        values, most = self._ceilings.column(number)
        least = best - self._own - first  # a place that may be higher has more than that
        if most + max(slope * (len(values) - 1), 0) <= least:
            return best
        totals = list(map(add, values, range(0, slope * len(values), slope))) if slope else values
        places = [(total, block) for block, total in enumerate(totals) if total > least]
        sources = self._ceilings.sources(number)
        for total, block in sorted(places, reverse=True):
            if total <= best - self._own - first:
                break
            best = max(best, self._value(sources[block]) + first + slope * block)
        return best


class _Ceilings:
    """Bytes that no rank of any number exceeds beside its own, at hooks of a program."""

    def __init__(self, program: Program, flow: Flow, costs: Costs) -> None:
        before, _, after = flow.totals
        hooks, _ = ceilings(Identity(flow), costs)
        self._values = program.held_bytes(sum(flow.start), before, hooks, after)
        self._placed = program.held[1]
        self._spans = program.backward_spans
        self._columns: dict[int, tuple[Sequence[int], int]] = {}
        self.most = max(self._values)

    def column(self, number: int) -> tuple[Sequence[int], int]:
        """Those of one column, and the highest."""
        found = self._columns.get(number)
        if found is None:
            values = self._placed.column(number, self._values)
            found = self._columns[number] = values, max(values)
        return found

    def sources(self, number: int) -> Sequence[int]:
        """Which of ``Program.held`` there are in one column."""
        return self._placed.numbers[self._spans[number]]


@lru_cache(maxsize=256)
def _ceilings_of(program: Identity, flow: Identity, costs: Costs) -> _Ceilings:
    return _Ceilings(program.of, flow.of, costs)


class Overlay:
    """Bytes that ZeRO holds at every place of a layout.

    Attributes:
        forward: in the order of the parts.
        backward: in the order in which parts run, the last first.
        last_gathered: gathered bytes at the end.
        per_rank: bytes that one more rank adds at most (stage 3: padding).
    """

    def __init__(self, layout: Layout, zero: Zero) -> None:
        self.per_rank = 0
        self._levels: _Levels | None = None
        program = self.program = program_of(layout)
        self.zero = zero
        self.flow = _flow(Identity(program.order), zero.tensors, zero.rules)
        forward, backward = self._gathered = self._gathered_sides()
        held = max([own.held for own in (zero.share.own, *zero.others)])
        start = sum(self.flow.start) + held
        self.forward = Pass(forward, start, program.forward_spans, kinds=self._kinds_of(False))
        self.backward = self._backward(backward, start)
        self.last_gathered = 0
        if backward is not None and backward.end.numbers:
            self.last_gathered = backward.values[backward.end.numbers[-1]]

    def _backward(self, gathered: Side | None, start: int) -> "Pass":
        flow, program, zero = self.flow, self.program, self.zero
        spans, hooks = program.backward_spans, None
        if zero.rules.scheme is Scheme.DEFERRED:  # nothing is reduced yet, nothing kept
            more = start - sum(flow.start)
            columns = [_more(totals, more) for totals in flow.totals]
            values = program.held_bytes(start, *columns)
            most = max(values)
        elif zero.rules.scheme is Scheme.HOOKED:
            hooks = Hooks(self)
            before, after = self.highest.before_totals(), self.highest.after_totals()
            hooks.values = values = program.held_bytes(start, before, hooks.nothing, after)
            most = max(*values, hooks.most)
        else:
            columns = [of() for of in self.highest.columns]
            values = program.held_bytes(start, *columns)
            most = max(values)
        side = Side(values, *program.held, most)
        return Pass(gathered, side, spans, hooks, self._kinds_of(True))

    def _kinds_of(self, is_backward: bool) -> Kinds | None:
        if self._levels is None:
            return None
        return _kinds(
            Identity(self._levels), Identity(self.program), Identity(self.flow), is_backward
        )

    @cached_property
    def _reduction(self) -> Reduction:
        return _reduction(self.program, self.zero, self.zero.share)

    @cached_property
    def highest(self) -> Highest:
        others = map(self._reduction.of_rank, self.zero.others)
        return Highest(self.flow, [self._reduction, *others])

    @cached_property
    def epilogue(self) -> Held:
        """The highest after the last gradient."""
        return self.highest.epilogue

    @cached_property
    def epilogue_ceiling(self) -> int:
        """Bytes that ``epilogue`` does not exceed."""
        zero = self.zero
        if zero.rules.scheme not in (Scheme.DEFERRED, Scheme.HOOKED):
            return self.epilogue.total
        costs = most_costs(self.flow, zero.tensors, zero.rules, zero.share)
        owns = (zero.share.own, *zero.others)
        if zero.rules.scheme is Scheme.HOOKED:
            own = self.highest.most_own + max([own.afterwards for own in owns])
        else:  # what is larger than the bucket can only be freed
            own = max([own.held + own.kept + own.afterwards for own in owns])
        return ceilings(Identity(self.flow), costs)[1] + own

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
            label = self.program.forward[index].label
            return HeldAt(label, end if is_end else within, self.highest.start)
        label = self.program.backward[index].label
        before, hook, after = self.program.held_at(self.highest, index)
        if not is_end:
            return HeldAt(label, within, before)
        is_hook = alone + hook.total > end + after.total
        return HeldAt(label, alone, hook) if is_hook else HeldAt(label, end, after)

    def left(self) -> tuple[int, ...]:
        """Elements of the gradients' storages that outlive backward (``Reduction.left``)."""
        return self._reduction.left()

    def _gathered_sides(self) -> tuple[Side | None, Side | None]:
        """Parameters in forward and in backward."""
        zero, program = self.zero, self.program
        if not zero.ranks:
            return None, None
        levels = self._levels = _levels(Identity(program), _gathering_of(zero))
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
            fetching = forms.NEVER
            if place.visits:
                begun = done + len(place.visits)
                fetching = together.of(*chain.from_iterable(visits[done:begun]))
                done, level = begun, visits[begun - 1][1]
                if number not in (0, backward):
                    ends[-1] = together.of(ends[-1], fetching)
                    fetching = forms.NEVER
            levels.append(together.of(level, fetching) if fetching else level)
            if place.ends:
                done += len(place.ends)
                level = visits[done - 1][1]
            ends.append(level)
            own.append(level)
        rows = [[numbers.setdefault(f, len(numbers)) for f in row] for row in (levels, ends, own)]
        places_of: dict[Form, int] = {}  # levels share most of their forms
        self._levels = [
            tuple([places_of.setdefault(form, len(places_of)) for form in found])
            for found in numbers
        ]
        self._forms = Compiled(tuple(places_of))
        self.per_rank = max([form.per_rank for form in places_of], default=0)
        self.forward = _placed((row[:backward] for row in rows), program.forward_spans)
        self.backward = _placed((row[backward:] for row in rows), program.backward_spans)

    def bytes_at(self, ranks: int, group: int) -> tuple[Side, Side]:
        """Bytes in forward and in backward."""
        sizes = self._forms.at(forms.Padding(ranks, group))
        values = [
            sizes[level[0]] if len(level) == 1 else max([sizes[place] for place in level])
            for level in self._levels
        ]
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
def _kinds(levels: Identity, program: Identity, flow: Identity, is_backward: bool) -> Kinds:
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


def _more(totals: Sequence[int], more: int) -> Sequence[int]:
    return [total + more for total in totals] if more else totals


def _reduction(program: Program, zero: Zero, share: Share) -> Reduction:
    return _reduction_of(Identity(program.order), zero.tensors, zero.rules, share)


@lru_cache(maxsize=256)
def _reduction_of(order: Identity, tensors: Tensors, rules: Rules, share: Share) -> Reduction:
    return Reduction(_flow(order, tensors, rules), tensors, rules, share)


@lru_cache(maxsize=64)
def _flow(order: Identity, tensors: Tensors, rules: Rules) -> Flow:
    return gradient_flow.flow(tensors, order.of, rules)


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
