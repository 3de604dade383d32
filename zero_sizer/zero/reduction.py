"""Memory of one rank while gradients flow (``gradient_flow``): its part, and reduction copies."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import accumulate
from typing import Any, NamedTuple, Self

from zero_sizer.util.identity import Identity
from zero_sizer.zero.copies import (
    NORM_ITEMSIZE,
    Alike,
    flattened,
    nothing,
    of_others,
    owner_by_owner,
    placing,
    scattered,
)
from zero_sizer.zero.extents import Extents, extents_of
from zero_sizer.zero.gradient_flow import Flow, Flush, Level, Rules, Scheme, Tensors
from zero_sizer.zero.share import NOTHING_OWN, Own, Share


class Held(NamedTuple):
    """Bytes beside everything persistent."""

    gradients: int
    buckets: int
    copies: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.gradients + self.buckets + self.copies


_NEVER = 2**62  # later than any reduction


class Holder:
    """Bytes that one rank holds of its own while gradients flow, followed when asked for.

    At a reduction's end (``Flow.time``) what a rank keeps is there, and what it frees goes last.

    Args:
        own: the rank, and what it has.
        extents: where tensors and buckets lie; None where ranks own no parts of them.
        ranks: over which they are cut.
        cleared: ``Flow.cleared``, where this rank's gradients in no buffer stay, or go, unlike
            others'; else nothing.
        differs: the groups of such gradients.
        itemsize: bytes per element of those; negative where they go.

    Attributes:
        rank: which.
        held: from the start.
        kept: from ``since`` on.
        most: bytes that it never exceeds.
    """

    __slots__ = (
        *("_cleared", "_differs", "_extents", "_itemsize", "_known", "_ranks"),
        *("held", "kept", "most", "rank", "since"),
    )

    def __init__(
        self,
        own: Own,
        extents: Extents | None,
        ranks: int,
        cleared: Sequence[int],
        differs: tuple[bool, ...],
        itemsize: int,
    ) -> None:
        self.rank, self.held, self.kept = own.rank, own.held, own.kept
        self._extents, self._ranks = extents, ranks
        self._cleared, self._differs, self._itemsize = cleared, differs, itemsize
        self._known: tuple[list[int], list[int]] | None = None
        self.since: int | None = None
        self.most = own.held + own.kept
        if extents is None:
            self.since = _NEVER
        elif cleared and itemsize > 0:
            self.most += max(self._changes()[1])

    @property
    def is_followed(self) -> bool:
        """True if gradients of its own in no buffer may stay, or go."""
        return bool(self._cleared)

    def begins(self) -> int:
        """The time from which on it keeps something, and gradients in no buffer stay or go."""
        found = self.since
        if found is None:
            extents: Any = self._extents
            found = self.since = 2 * extents.first_held(self._ranks, self.rank) + 1
        return found

    def at(self, time: int) -> int:
        """Bytes at a time."""
        if time < self.begins():
            return self.held
        if not self._cleared:
            return self.held + self.kept
        numbers, sums = self._changes()
        return self.held + self.kept + sums[bisect_left(numbers, time // 2)]

    def _changes(self) -> tuple[list[int], list[int]]:
        """The reductions of its gradients in no buffer, and their bytes up to each, 0 first."""
        found = self._known
        if found is None:
            extents: Any = self._extents
            rows = extents.loose_of(self._ranks, self.rank, self._cleared, self._differs)
            sums = [0, *accumulate([numel * self._itemsize for _, numel in rows])]
            found = self._known = [number for number, _ in rows], sums
        return found


class Reduction:
    """One rank's side of a flow.

    Attributes:
        flow: what all ranks do.
        start: before the first gradient.
        alike: what it has in common with all.
        own: what it has of its own.
    """

    def __init__(self, flow: Flow, tensors: Tensors, rules: Rules, share: Share) -> None:
        self.flow = flow
        self._share = share
        self._tensors, self._rules = tensors, rules
        self._extents: Extents | None = None
        if rules.scheme is Scheme.SCATTERED:
            self.alike = scattered(flow, tensors, rules, share)
        elif flow.flushes:
            self._extents = extents_of(Identity(flow), tensors, *placing(rules, share))
            self._parts = self._extents.parts(share.ranks)
            of_any = replace(share, own=NOTHING_OWN)
            self.alike = of_others(Identity(flow), Identity(self._extents), rules, of_any)
        else:
            self.alike = Alike(flow, nothing)
        self._take(share.own)

    def of_rank(self, own: Own) -> Self:
        """Another rank's side of the same flow."""
        other = object.__new__(type(self))  # copy() takes as long as all the rest
        other.__dict__.update(self.__dict__)
        other._take(own)
        return other

    def _take(self, own: Own) -> None:
        self.own = own
        self.holder = self.holder_of(own)
        self.__dict__.pop("_own_costs", None)
        self.start = self._held(self.flow.start, 0)

    @cached_property
    def _own_costs(self) -> dict[int, tuple[int, int]]:
        """What reductions cost that this rank owns a part of."""
        if self._extents is None or self.costs_alike:
            return {}
        touched = self._extents.touched(self._share.ranks, self.own.rank)
        return {number: self.own_cost(number, self.own.rank) for number in touched}

    def holder_of(self, own: Own) -> Holder:
        """Bytes that a rank holds of its own."""
        itemsize = self.flow.itemsize * (-1 if self._rules.keeps_large else 1)
        which = (self._cleared, self._differs, itemsize)
        return Holder(own, self._extents, self._share.ranks, *which)

    @cached_property
    def _differs(self) -> tuple[bool, ...]:
        """Groups of which a rank's own stay longer than others' in no buffer, or go earlier."""
        keeps = self._share.keeps_own or (False,) * len(self._tensors.groups)
        return tuple([stays is not self._rules.keeps_large for stays in keeps])

    @cached_property
    def _cleared(self) -> Sequence[int]:
        """``Flow.cleared`` where there are such groups."""
        if self._extents is None or not any(self._differs) or max(self.flow.cleared) < 0:
            return ()
        return self.flow.cleared

    @property
    def costs_alike(self) -> bool:
        """True if a reduction costs its owners what it costs all others."""
        return not (self._share.offloads or self._share.is_compact)

    def owners(self, number: int) -> tuple[int, int]:
        """The first and the last rank that own a part of what a reduction takes."""
        if self._extents is None:
            return 0, -1
        return self._extents.span(number, self._parts)

    def own_cost(self, number: int, rank: int) -> tuple[int, int]:
        """Bytes of the copies of a reduction that a rank owns a part of (``Alike.cost``)."""
        flow, rules, share, extents = self.flow, self._rules, self._share, self._extents
        flush = flow.flushes[number]
        copies, _, reduced = self.alike.cost(number)
        if extents is None:
            return copies, 0
        where = (rank, self._parts)
        offload = extents.largest(flush.members, *where) * NORM_ITEMSIZE if share.offloads else 0
        added = extents.largest(flush.members, *where, share.compact) if share.is_compact else 0
        if added:
            if share.by_owner:
                runs = extents.runs(number, self._parts, (rank, share.compact))
                copies, _, reduced = owner_by_owner(flush, runs, rules, share, rank)
            elif len(flush.members) > 1 and not rules.is_loose:
                # each is added on its own: none is merged with the next
                copies, reduced = flattened(flush, [flush.numel], rules, share)
            # the buffer is there before a bucket's copies are
            before = 0 if rules.is_loose else copies
            offload = max(offload, before, reduced + added * share.compact_itemsize)
        return copies, offload

    def before(self, position: int) -> Held:
        """While the gradient at ``position`` is produced."""
        return self._held(self.flow.before[position], self.flow.time(self.flow.done[position]))

    def hook(self, position: int) -> Held:
        """At the worst of its hook."""
        flow = self.flow
        first, done = flow.done[position : position + 2]
        worst = self._held(flow.hook[position], flow.time(flow.hook_done[position]))
        for number in range(first, done):
            worst = max(worst, *self._reduced(number), key=total_of)
        return worst

    def after(self, position: int) -> Held:
        """When its hook is over."""
        return self._held(self.flow.after[position], self.flow.time(self.flow.done[position + 1]))

    def left(self) -> tuple[int, ...]:
        """Elements of the storages that gradients of other ranks' tensors keep alive (stage 1).

        Most are views of a bucket; tensors too large for it have their own
        (stage_1_and_2.py:1133-1144, 1459-1470).
        """
        flow, rules, extents = self.flow, self._rules, self._extents
        if not rules.bucket_itemsize or extents is None:
            return tuple(numel for flush in flow.flushes for numel in self._numels_of(flush))
        parts, rank = self._parts, self.own.rank
        found: dict[int, int] = {}  # buffer, or the number of a large gradient's reduction
        for number, flush in enumerate(flow.flushes):
            if all(extents.holds((i,), rank, parts) for i in flush.members):
                continue
            is_large = rules.is_large(flush.numel)
            where = number + 2 if is_large else flush.buffer % rules.num_buckets
            found[where] = flush.numel if is_large else rules.bucket_numel
        return tuple(found.values())

    def _numels_of(self, flush: Flush) -> Iterator[int]:
        return (self._tensors.numels[i] for i in flush.members)

    def _held(self, level: Level, time: int, copies: int = 0) -> Held:
        gradients, buckets = level
        left = self.alike.left(time // 2)
        return Held(gradients + self.holder.at(time) + left, buckets, copies)

    def _reduced(self, number: int) -> tuple[Held, Held]:
        """While a bucket is reduced, then while its gradients go to the host."""
        level = self.flow.flushes[number].level
        own_costs = self._own_costs.get(number)
        copies, offload = self.alike.cost(number)[:2] if own_costs is None else own_costs
        return self._held(level, 2 * number, copies), self._held(level, 2 * number + 1, offload)

    def closing(self, index: int) -> Held:
        """At one of the levels after the last gradient."""
        return self._held(*self.flow.closing[index])

    def reducing(self, number: int) -> Held:
        """At the worst of a reduction."""
        return max(self._reduced(number), key=total_of)

    def own_from(self, numbers: range) -> Iterator[int]:
        """Reductions among these that cost this rank more than others."""
        return (number for number in self._own_costs if number in numbers)

    def after_all(self) -> Iterator[Held]:
        """Bytes that only this rank holds after the last gradient, at its worst."""
        flow, rules, share = self.flow, self._rules, self._share
        if self.own.afterwards:
            yield self._held(*flow.closing[-1], self.own.afterwards)
        if rules.scheme is Scheme.AFTER:
            cast = share.cast_itemsizes[0]
            copies = [a * rules.bucket_itemsize + b * cast for a, b in flow.after_copies]
            yield self._held(flow.closing[0][0], 0, max(copies, default=0))


def total_of(held: Held) -> int:
    """All bytes, to compare by."""
    return held.total
