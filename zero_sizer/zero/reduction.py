"""Memory of one rank while gradients flow (``gradient_flow``): its part, and reduction copies."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import NamedTuple, Self

from zero_sizer.util.identity import Identity
from zero_sizer.zero.copies import (
    NORM_ITEMSIZE,
    Alike,
    flattened,
    nothing,
    of_others,
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
        self._own_costs: dict[int, tuple[int, int]] = {}
        self._own_large: list[tuple[int, int]] = []
        self._first = len(self.flow.flushes)
        if self._extents is not None:
            touched = self._extents.touched(self._share.ranks, own.rank)
            self._first = self._extents.first_held(self._share.ranks, own.rank)
            self._own_large = _own_large(self.flow, touched, self._rules, self._share)
            if not self.costs_alike:
                self._own_costs = self._costs(self._extents, touched)
        self._own_sums = [0, *accumulate([size for _, size in self._own_large])]
        self.start = self._held(self.flow.start, 0)

    @property
    def costs_alike(self) -> bool:
        """True if a reduction costs its owners what it costs all others."""
        return not (self._share.offloads or self._share.is_compact)

    def _costs(self, extents: Extents, touched: Sequence[int]) -> dict[int, tuple[int, int]]:
        """What reductions cost that this rank owns a part of."""
        flow, rules, share = self.flow, self._rules, self._share
        costs = {}
        for number in touched:
            flush = flow.flushes[number]
            copies, _, reduced = self.alike.cost(number)
            if share.is_compact and len(flush.members) > 1:
                # each is added on its own: none is merged with the next
                copies, reduced = flattened(flush, [flush.numel], rules, share)
            largest = extents.largest(flush.members, self.own.rank, self._parts)
            offload = largest * NORM_ITEMSIZE if largest and share.offloads else 0
            if largest and share.is_compact:  # the buffer is there before the copies are
                offload = max(offload, copies, reduced + largest * share.compact_itemsize)
            costs[number] = (copies, offload)
        return costs

    def before(self, position: int) -> Held:
        """While the gradient at ``position`` is produced."""
        return self._held(self.flow.before[position], self.flow.done[position])

    def hook(self, position: int) -> Held:
        """At the worst of its hook."""
        first, done = self.flow.done[position : position + 2]
        worst = self._held(self.flow.hook[position], self.flow.hook_done[position])
        for number in range(first, done):
            worst = max(worst, *self._reduced(number), key=total_of)
        return worst

    def after(self, position: int) -> Held:
        """When its hook is over."""
        return self._held(self.flow.after[position], self.flow.done[position + 1])

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

    def changes(self) -> Iterator[tuple[int, int]]:
        """Times at which this rank's own bytes change, and by how much.

        Time ``2 n`` is before reduction n; what it keeps is there from ``2 n + 1`` on, and what it
        frees goes last.
        """
        if self.own.kept and self._first < len(self.flow.flushes):
            yield 2 * self._first + 1, self.own.kept
        yield from ((2 * number + 2, size) for number, size in self._own_large)

    def own_hooks(self) -> set[int]:
        """Gradients whose hooks reduce something that this rank owns a part of."""
        hook_of = self.flow.hook_of
        return {hook_of[number] for number in self._own_costs if number in hook_of}

    def _held(self, level: Level, done: int, copies: int = 0) -> Held:
        own = self.own.held + self._own_before(done)
        if done > self._first:
            own += self.own.kept
        gradients, buckets = level
        return Held(gradients + own, buckets, copies)

    def _own_before(self, done: int) -> int:
        large = self._own_large
        return self._own_sums[bisect_left(large, (done,))] if large else 0

    def _reduced(self, number: int) -> tuple[Held, Held]:
        """While a bucket is reduced, then while its gradients go to the host."""
        level = self.flow.flushes[number].level
        own_costs = self._own_costs.get(number)
        copies, offload = self.alike.cost(number)[:2] if own_costs is None else own_costs
        own = self._own_before(number) - self._own_before(number + 1)  # frees come last
        going = self._held(level, number + 1, offload)
        return self._held(level, number, copies), going._replace(gradients=going.gradients + own)

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


def _own_large(
    flow: Flow, touched: Sequence[int], rules: Rules, share: Share
) -> list[tuple[int, int]]:
    """Reductions of a rank's large gradients: bytes that stay beyond what stays of others'."""
    if rules.keeps_large is share.keeps_own_large:
        return []
    sign, large = 1 if share.keeps_own_large else -1, flow.large
    return [(number, sign * large[number]) for number in touched if large[number]]
