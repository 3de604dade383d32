"""Memory of one rank while gradients flow (``gradient_flow``): its part, and reduction copies."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple, Self

from zero_sizer.units import ceil_div
from zero_sizer.util.identity import Identity
from zero_sizer.util.records import dataclass
from zero_sizer.zero import partition
from zero_sizer.zero.extents import ALIKE, Extents, extents_of
from zero_sizer.zero.gradient_flow import Flow, Flush, Level, Rules, Scheme, Tensors

_NORM_ITEMSIZE = 8  # the norm of an offloaded gradient is taken in fp64, zero/utils.py:59-63
_NORM_CHUNK = 250_000_000  # elements: _constant_buffered_norm2, stage3.py:1908


class Own(NamedTuple):
    """Differences between ranks.

    Attributes:
        rank: whose memory is meant.
        kept: bytes that hold this rank's reduced gradients, from its first reduction on.
        held: bytes of gradients that earlier micro steps left.
        afterwards: bytes of what is made of all gradients when the last is reduced (Muon).
    """

    rank: int = 0
    kept: int = 0
    held: int = 0
    afterwards: int = 0


NOTHING_OWN = Own()


@dataclass(frozen=True, kw_only=True)
class Share:
    """Parts of the flow that depend on the rank, on how many there are, and on earlier micro steps.

    Attributes:
        ranks: ranks that partitions are cut for.
        own: what depends on the rank.
        cast_itemsizes: bytes per element of the copy in the dtype of communication; 0 where none
            is made. The second is of buckets with ``Tensors.apart``.
        copies: whether reduction makes a flat copy of what it reduces.
        offloads: reduced gradients go to the host one by one.
        master_itemsize: bytes per element of the copy that is cast on the way; 0 where none is.
        brought_itemsize: of an offloaded partition that comes back to be added to (stage 3).
        part_itemsizes: of the reduced partitions' copies in the dtype that is accumulated, as
            ``cast_itemsizes`` (stage3.py:1943-1944).
        casts_together: those of a bucket stay until all are made (NVMe at stage 3).
        is_compact: what is reduced is added to a buffer of the partition's size, tensor by tensor
            (stage_1_and_2.py:1259-1326).
        compact_itemsize: bytes per element of the copy that is cast for that; 0 where none is.
        keeps_own_large: a gradient of this rank that is too large for the bucket stays when it is
            reduced; ``Rules.keeps_large`` says it for those of other ranks.
        align_tensors: ``parameter_alignment``.
        deals_tensors: tensors lie in the flat buffers dealt out to the ranks one by one.
        divides: whether ranks divide a tensor that is reduced alone; None: as they do. Set for
            bounds of what other numbers of ranks hold.
    """

    ranks: int = 1
    own: Own = NOTHING_OWN
    cast_itemsizes: tuple[int, int]
    copies: bool = False
    offloads: bool = False
    master_itemsize: int = 0
    brought_itemsize: int = 0
    part_itemsizes: tuple[int, int] = (0, 0)
    casts_together: bool = False
    is_compact: bool = False
    compact_itemsize: int = 0
    keeps_own_large: bool = False
    align_tensors: bool = False
    deals_tensors: bool = False
    divides: bool | None = None


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
            self.alike = _scattered(flow, tensors, rules, share)
        elif flow.flushes:
            self._extents = extents_of(Identity(flow), tensors, *_placing(rules, share))
            self._parts = self._extents.parts(share.ranks)
            of_any = replace(share, own=NOTHING_OWN)
            self.alike = _of_others(Identity(flow), Identity(self._extents), rules, of_any)
        else:
            self.alike = Alike(flow, _nothing)
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
                copies, reduced = _flattened(flush, [flush.numel], rules, share)
            largest = extents.largest(flush.members, self.own.rank, self._parts)
            offload = largest * _NORM_ITEMSIZE if largest and share.offloads else 0
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


def _nothing(number: int) -> tuple[int, int, int]:
    """The cost where nothing is reduced."""
    return 0, 0, 0


def total_of(held: Held) -> int:
    """All bytes, to compare by."""
    return held.total


class Alike:
    """Costs of reductions for a rank that owns nothing of them, each worked out when asked for.

    Args:
        flow: the reductions.
        cost: of one: bytes of its copies, of those on the way to the host, and of the copy that
            was reduced.
        by_kind: whether those of a kind cost alike.
    """

    def __init__(
        self, flow: Flow, cost: Callable[[int], tuple[int, int, int]], *, by_kind: bool = False
    ) -> None:
        self._flow = flow
        self._cost = cost
        self._by_kind = by_kind
        self._known: dict[int, tuple[int, int, int]] = {}

    def cost(self, number: int) -> tuple[int, int, int]:
        """See ``Alike``."""
        found = self._known.get(number)
        if found is None:
            found = self._known[number] = self._cost(number)
        return found

    def total(self, number: int) -> int:
        """Bytes at the worst of a reduction, without what is kept."""
        copies, going, _ = self.cost(number)
        return self._flow.flush_totals[number] + max(copies, going)

    def hook(self, position: int) -> int:
        """The same of a gradient's hook."""
        flow = self._flow
        worst = flow.totals[1][position]
        for number in range(flow.done[position], flow.done[position + 1]):
            worst = max(worst, self.total(number))
        return worst

    def hooks(self) -> Sequence[int]:
        """The same of every hook."""
        flow = self._flow
        if not flow.hook_of:
            return flow.totals[1]
        if not self._by_kind:
            return [self.hook(position) for position in range(len(flow.hook))]
        firsts, kinds = flow.hook_kinds
        found = [self.hook(position) for position in firsts]
        return [found[kind] for kind in kinds]


def _scattered(flow: Flow, tensors: Tensors, rules: Rules, share: Share) -> Alike:
    """Reduce-scatter: an interleaved input; what is kept lies in the partition's own buffer."""
    kinds, numbers = flow.kinds
    costs = [(*_scatter(*kind, rules, share), 0) for kind in kinds]
    return Alike(flow, lambda number: costs[numbers[number]], by_kind=True)


def _scatter(
    sizes: tuple[tuple[int, int], ...], is_apart: bool, rules: Rules, share: Share
) -> tuple[int, int]:
    """For a bucket of so many tensors (count) of each size.

    The bucket's buffer is of the dtype of communication; what is not in it has to be cast.
    """
    ranks, largest = share.ranks, max(size for size, _ in sizes)
    numel = sum(size * count for size, count in sizes)
    cast, parted = share.cast_itemsizes[is_apart], share.part_itemsizes[is_apart]
    is_buffered = rules.bucket_itemsize and numel <= rules.bucket_numel
    copies = 0 if is_buffered else cast * numel
    divides = largest % ranks == 0 if share.divides is None else share.divides
    is_whole = sizes == ((largest, 1),) and divides  # reduced in place
    if share.copies and not is_whole:
        padded = sum(count * partition.padded(size, ranks) for size, count in sizes)
        copies += padded * (cast or rules.itemsize)
    parts = parted * sum(count * ceil_div(size, ranks) for size, count in sizes)
    kept = parts or copies  # what was reduced is gone when its parts are cast
    if not share.offloads:
        return copies + parts, 0
    part = ceil_div(largest, ranks)
    norm_or_cast = max(min(part, _NORM_CHUNK) * _NORM_ITEMSIZE, part * share.master_itemsize)
    if share.casts_together:  # the largest is taken for the last
        others = sum(count * ceil_div(size, ranks) for size, count in sizes) - part
        norm_or_cast += others * (share.master_itemsize or share.brought_itemsize)
    return copies + parts, part * share.brought_itemsize + norm_or_cast + kept


@lru_cache(maxsize=64)
def _of_others(flow: Identity, extents: Identity, rules: Rules, share: Share) -> Alike:
    parts, flushes = extents.of.parts(share.ranks), flow.of.flushes

    def cost(number: int) -> tuple[int, int, int]:
        flush, (low, high) = flushes[number], extents.of.span(number, parts)
        if low == high or not share.copies:  # one slice, or no copy of any
            size = flush.numel * share.cast_itemsizes[flush.is_apart]
            return size, 0, size
        slices = [flush.numel]
        if rules.is_large(flush.numel):
            slices = extents.of.slices(flush.members[0], parts, rules.bucket_numel)
        copies, reduced = _flattened(flush, slices, rules, share)
        return copies, 0, reduced

    return Alike(flow.of, cost)


class Costs(NamedTuple):
    """The most that reductions cost at stages 1 and 2, whoever owns them.

    Attributes:
        each: bytes per element of what is reduced.
        piece: more bytes per element of the largest piece of one tensor (``Share.is_compact``).
        norm: bytes per element of that piece while its norm is taken, if that is more.
        part: no piece has more elements; 0 where neither counts.
    """

    each: int
    piece: int
    norm: int
    part: int


def most_costs(flow: Flow, tensors: Tensors, rules: Rules, share: Share) -> Costs:
    """See ``Costs``."""
    piece = share.compact_itemsize if share.is_compact else 0
    norm = _NORM_ITEMSIZE if share.offloads else 0
    part = 0
    if piece or norm:
        parts = extents_of(Identity(flow), tensors, *_placing(rules, share)).parts(share.ranks)
        part = max(parts)
    return Costs(rules.bucket_itemsize + max(share.cast_itemsizes), piece, norm, part)


@lru_cache(maxsize=256)
def ceilings(flow: Identity, costs: Costs) -> tuple[tuple[int, ...], int]:
    """Bytes that no hook exceeds, and none after the last gradient, without a rank's own."""
    of: Flow = flow.of
    flushes = zip(of.flush_totals, of.flushes, strict=True)
    if costs.part:
        pieces = [min(largest, costs.part) for largest in of.largest]
        totals = [
            total + max(flush.numel * costs.each + piece * costs.piece, piece * costs.norm)
            for (total, flush), piece in zip(flushes, pieces, strict=True)
        ]
    else:
        totals = [total + flush.numel * costs.each for total, flush in flushes]
    hooks = list(of.totals[1])
    for number, position in of.hook_of.items():
        hooks[position] = max(hooks[position], totals[number])
    return tuple(hooks), max([*of.closing_totals[0], *totals[of.done[-1] :]])


def _flattened(flush: Flush, slices: Sequence[int], rules: Rules, share: Share) -> tuple[int, int]:
    """Bytes of the copies while slices are reduced at once, and of the one that was reduced.

    No slices: the bucket lies in one rank's partition, which is one slice, a view. Of a large
    gradient so many are reduced at once as pass a bucket (``allreduce_and_scatter``,
    stage_1_and_2.py:1545-1588); a bucket's own slices are always reduced together.
    """
    cast = share.cast_itemsizes[flush.is_apart]
    if not (slices and share.copies):
        return flush.numel * cast, flush.numel * cast
    flat = rules.bucket_itemsize
    if len(slices) == 1:
        return slices[0] * (flat + cast), slices[0] * (cast or flat)
    most, reduced = 0, 0
    numel = count = done = 0
    for position, size in enumerate(slices):
        numel, count = numel + size, count + 1
        if numel > rules.bucket_numel or position == len(slices) - 1:
            flat = rules.bucket_itemsize if count > 1 else 0
            most = max(most, numel * (flat + cast))
            reduced = max(reduced, numel * (cast or flat))
            numel, count, done = 0, 0, done + 1
            if done == ALIKE:
                break
    return most, reduced


def _own_large(
    flow: Flow, touched: Sequence[int], rules: Rules, share: Share
) -> list[tuple[int, int]]:
    """Reductions of a rank's large gradients: bytes that stay beyond what stays of others'."""
    if rules.keeps_large is share.keeps_own_large:
        return []
    sign, large = 1 if share.keeps_own_large else -1, flow.large
    return [(number, sign * large[number]) for number in touched if large[number]]


def _placing(rules: Rules, share: Share) -> tuple[bool, int, int]:
    """What decides where tensors lie: alignment, and the ranks that they are dealt out to."""
    return share.align_tensors, rules.itemsize, share.ranks if share.deals_tensors else 1
