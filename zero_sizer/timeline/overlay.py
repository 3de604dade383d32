"""Memory that ZeRO holds at every place of a step: parameters, gradients, buckets, copies.

Neither the batch nor the sequence changes it. What does not depend on the number of ranks either
(what is gathered when, which gradients are reduced together) is followed once and kept.
"""

from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import NamedTuple

from zero_sizer.timeline import late
from zero_sizer.timeline.gathered import Levels, gathered_at
from zero_sizer.timeline.late import Bound
from zero_sizer.timeline.passes import Listed, Pass, Side
from zero_sizer.timeline.program import Layout, Program, program_of
from zero_sizer.util.caches import cached_large
from zero_sizer.util.identity import Identity
from zero_sizer.util.records import dataclass
from zero_sizer.zero import gradient_flow, replay
from zero_sizer.zero.copies import Alike, Costs, ceilings, most_costs
from zero_sizer.zero.gradient_flow import Flow, Rules, Scheme, Tensors
from zero_sizer.zero.highest import Highest
from zero_sizer.zero.reduction import Held, Reduction
from zero_sizer.zero.secondary import Secondary
from zero_sizer.zero.share import Own, Share
from zero_sizer.zero.swapping import Swapped
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
        swapped: see ``trace.Trace``.
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
    swapped: Swapped | None = None
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
        self.last_gathered = 0
        program = self.program = program_of(layout)
        self.zero = zero
        self.flow = _flow(Identity(program.order), zero.tensors, zero.rules)
        held = max([own.held for own in (zero.share.own, *zero.others)])
        start = sum(self.flow.start) + held
        self._gathered: tuple[Side | None, Side | None] = (None, None)
        if zero.ranks:
            forward, backward = self._where_gathered(start)
        else:
            forward = Bound(Listed(None, start, program.forward_spans), start)
            backward = self._reducing(start)
        self.forward = Pass(*forward, program.forward_spans)
        self.backward = Pass(*backward, program.backward_spans)

    def _where_gathered(self, start: int) -> tuple[Bound, Bound]:
        """Forward and backward where parameters are gathered."""
        zero, levels = self.zero, _levels(*_keys(self.program, self.zero))
        copied = max(*zero.share.cast_itemsizes, zero.rules.itemsize)
        self.per_rank = levels.per_rank + copied * self.flow.most_together
        _, backward = found = gathered_at(Identity(levels), zero.ranks)
        self._gathered = found
        if backward.end.numbers:
            self.last_gathered = backward.values[backward.end.numbers[-1]]
        how = (zero.tensors, zero.rules, zero.share)
        return late.gathered(levels, self.program, how, self.flow, self._reduction.alike, start)

    def _reducing(self, start: int) -> Bound:
        """Backward where none are."""
        flow, program, zero = self.flow, self.program, self.zero
        if zero.rules.scheme is Scheme.HOOKED:
            return late.owned(program, flow, self.highest, self._costs, start)
        if zero.rules.scheme is Scheme.DEFERRED:  # nothing is reduced yet, nothing kept
            values, most = self._held_bytes(start, flow.totals[1], flow.most[1])
        else:
            alike = self._reduction.alike
            values, most = self._held_bytes(start, *alike.hooks(), alike)
        return Bound(Listed(None, Side(values, *program.held), program.backward_spans), most)

    def _held_bytes(
        self, start: int, hooks: Sequence[int], most: int, alike: Alike | None = None
    ) -> tuple[Sequence[int], int]:
        """``Program.held_bytes`` where a rank's own is there all the time, and the highest."""
        flow = self.flow
        before: Sequence[int] = flow.totals[0]
        after: Sequence[int] = flow.totals[2]
        highest = max(flow.most[0], most, flow.most[2])
        if alike is not None and alike.leaves:
            before = alike.with_left(before, flow.done)
            after = alike.with_left(after, flow.done[1:])
            highest = max([most, *before, *after])
        more = start - sum(flow.start)
        columns = [_more(totals, more) for totals in (before, hooks, after)]
        return self.program.held_bytes(start, *columns), max(start, highest + more)

    @cached_property
    def _costs(self) -> Costs:
        zero = self.zero
        return most_costs(self.flow, zero.tensors, zero.rules, zero.share)

    @cached_property
    def _reduction(self) -> Reduction:
        return _reduction(self.program, self.zero, self.zero.share)

    @cached_property
    def highest(self) -> Highest:
        """Of the ranks the one that holds most, at every place."""
        return Highest(self.flow, self._reduction, self.zero.others)

    @property
    def epilogue(self) -> Held:
        """The highest after the last gradient."""
        return self.highest.epilogue

    @cached_property
    def epilogue_total(self) -> int:
        """Bytes of ``epilogue``."""
        match self.zero.rules.scheme:
            case Scheme.SCATTERED:
                return self.highest.epilogue_of_all()
            case Scheme.AFTER:
                return self.epilogue.total
        return self.highest.epilogue_total(ceilings(Identity(self.flow), self._costs).after)

    @cached_property
    def epilogue_ceiling(self) -> int:
        """Bytes that ``epilogue`` does not exceed."""
        zero = self.zero
        if zero.rules.scheme in (Scheme.SCATTERED, Scheme.AFTER):  # soon told
            return self.epilogue_total
        owns = (zero.share.own, *zero.others)
        if zero.rules.scheme is Scheme.HOOKED:
            own = self.highest.most_own + max([own.afterwards for own in owns])
        else:  # what is larger than the bucket can only be freed
            own = max([own.held + own.kept + own.afterwards for own in owns])
        return ceilings(Identity(self.flow), self._costs).after[0][0] + own

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


@cached_large(maxsize=1024)
def gathering_of(zero: Identity) -> Gathering:
    """How a ``Zero`` gathers: of equal ones the same, which is all that caches compare."""
    of: Zero = zero.of
    parts = (of.tensors.numels, of.itemsizes, of.gather_itemsizes)
    places, kept = (of.ranks == 1, of.is_parked), (of.kept, of.recomputed, of.lent)
    more = (of.secondary, of.views, of.is_first, of.swapped)
    return _first_met(Gathering(of.limits, parts, of.persistent, places, kept, *more))


@cached_large(maxsize=1024)
def _first_met(how: Gathering) -> Gathering:
    return how


@cached_large(maxsize=256)
def _levels(program: Identity, how: Identity) -> Levels:
    trace = how.of.trace(*program.of.visits)
    visits = replay.gathered(trace, how.of.limits, program.of.blocks)
    return Levels(program.of, visits, how.of.secondary.ranks)


@lru_cache(maxsize=256)
def _cut(program: Identity, how: Identity) -> tuple[tuple[int, ...], tuple[int, ...]]:
    visits, forward = program.of.visits
    trace = how.of.trace(visits, forward)
    return replay.secondaries_made(trace, how.of.limits, forward, program.of.blocks)


def _keys(program: Program, zero: Zero) -> tuple[Identity, Identity]:
    return Identity(program), Identity(gathering_of(Identity(zero)))


def secondaries_made(layout: Layout, zero: Zero, *, in_forward: bool) -> tuple[int, ...]:
    """Parameters whose secondary partitions forward makes, or both passes, in that order."""
    forward, both = _cut(*_keys(program_of(layout), zero))
    return forward if in_forward else both


def _more(totals: Sequence[int], more: int) -> Sequence[int]:
    return [total + more for total in totals] if more else totals


def _reduction(program: Program, zero: Zero, share: Share) -> Reduction:
    return _reduction_of(Identity(program.order), zero.tensors, zero.rules, share)


@cached_large(maxsize=256)
def _reduction_of(order: Identity, tensors: Tensors, rules: Rules, share: Share) -> Reduction:
    return Reduction(_flow(order, tensors, rules), tensors, rules, share)


@cached_large(maxsize=64)
def _flow(order: Identity, tensors: Tensors, rules: Rules) -> Flow:
    return gradient_flow.flow(tensors, order.of, rules)


@cached_large(maxsize=256)
def _overlay(layout: Identity, zero: Identity) -> Overlay:
    return Overlay(layout.of, zero.of)


def overlay_of(layout: Layout, zero: Zero) -> Overlay:
    """Overlay of a layout; ``interned`` makes equal ``zero`` the same."""
    return _overlay(Identity(layout), Identity(zero))


@cached_large(maxsize=1024)
def interned(zero: Zero) -> Zero:
    """The first met of all that are equal."""
    return zero
