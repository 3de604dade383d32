"""What one rank holds while gradients flow (``gradient_flow``): its part, and reduction copies."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import NamedTuple

from zero_sizer.identity import Identity
from zero_sizer.units import ceil_div
from zero_sizer.zero import partition
from zero_sizer.zero.gradient_flow import Flow, Flush, Level, Rules, Scheme, Tensors

_NORM_ITEMSIZE = 8  # the norm of an offloaded gradient is taken in fp64, zero/utils.py:59-63
_ALIKE = 2  # pieces of one tensor that are reduced together: the later ones are no larger
_NORM_CHUNK = 250_000_000  # elements: _constant_buffered_norm2, stage3.py:1908


@dataclass(frozen=True, kw_only=True)
class Share:
    """What depends on the rank, on how many there are, and on earlier micro steps.

    Attributes:
        ranks: ranks that partitions are cut for.
        rank: whose memory is meant.
        kept: bytes that hold this rank's reduced gradients, from its first reduction on.
        held: bytes of gradients that earlier micro steps left.
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
        afterwards: bytes of what is made of all gradients when the last is reduced (Muon).
        align_tensors: ``parameter_alignment``.
        deals_tensors: tensors lie in the flat buffers dealt out to the ranks one by one.
    """

    ranks: int = 1
    rank: int = 0
    kept: int = 0
    held: int
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
    afterwards: int = 0
    align_tensors: bool = False
    deals_tensors: bool = False


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
        start: before the first gradient.
        epilogue: the highest after the last gradient.
    """

    def __init__(self, flow: Flow, tensors: Tensors, rules: Rules, share: Share) -> None:
        self._flow = flow
        self._share = share
        self._tensors, self._rules = tensors, rules
        costs = _scattered if rules.scheme is Scheme.SCATTERED else _reduced
        self._flushes, self._first, self._own = costs(flow, tensors, rules, share)
        self.start = self._held(flow.start, 0)
        self.epilogue = self._epilogue(rules)

    def before_totals(self) -> Sequence[int]:
        """Bytes while each gradient is produced."""
        return self._totals(self._flow.totals[0], self._flow.done)

    def hook_totals(self) -> list[int]:
        """Bytes at the worst of each hook."""
        flow, (plain, with_kept) = self._flow, self._offsets
        totals = list(self._totals(flow.totals[1], flow.hook_done))
        for number, position, level in flow.flush_positions:
            copies, offload = self._flushes[number]
            copies += with_kept if number > self._first else plain
            offload += with_kept if number >= self._first else plain
            worst = level + (copies if copies > offload else offload)
            if self._own:
                worst += self._own[number]
            if worst > totals[position]:
                totals[position] = worst
        return totals

    def after_totals(self) -> Sequence[int]:
        """Bytes when each hook is over."""
        return self._totals(self._flow.totals[2], self._flow.done[1:])

    def before(self, position: int) -> Held:
        """While the gradient at ``position`` is produced."""
        return self._held(self._flow.before[position], self._flow.done[position])

    def hook(self, position: int) -> Held:
        """At the worst of its hook."""
        first, done = self._flow.done[position : position + 2]
        worst = self._held(self._flow.hook[position], self._flow.hook_done[position])
        for number in range(first, done):
            worst = max(worst, *self._reduced(number), key=_total)
        return worst

    def after(self, position: int) -> Held:
        """When its hook is over."""
        return self._held(self._flow.after[position], self._flow.done[position + 1])

    def left(self) -> tuple[int, ...]:
        """Elements of the storages that gradients of other ranks' tensors keep alive (stage 1).

        Most are views of a bucket; tensors too large for it have their own
        (stage_1_and_2.py:1133-1144, 1459-1470).
        """
        flow, rules, share = self._flow, self._rules, self._share
        if not rules.bucket_itemsize or not flow.flushes:
            return tuple(numel for flush in flow.flushes for numel in self._numels_of(flush))
        extents = _extents(Identity(flow), self._tensors, *_placing(rules, share))
        parts, rank = extents.parts(share.ranks), share.rank
        found: dict[int, int] = {}  # buffer, or the number of a large gradient's reduction
        for number, flush in enumerate(flow.flushes):
            if all(extents.largest((i,), rank, parts) for i in flush.members):
                continue
            is_large = rules.is_large(flush.numel)
            where = number + 2 if is_large else flush.buffer % rules.num_buckets
            found[where] = flush.numel if is_large else rules.bucket_numel
        return tuple(found.values())

    def _numels_of(self, flush: Flush) -> Iterator[int]:
        return (self._tensors.numels[i] for i in flush.members)

    def _totals(self, totals: Sequence[int], done: Sequence[int]) -> Sequence[int]:
        plain, with_kept = self._offsets
        if not (with_kept or self._own):
            return totals
        first = bisect_right(done, self._first)
        found = [
            *[total + plain for total in totals[:first]],
            *[total + with_kept for total in totals[first : len(totals)]],
        ]
        if self._own:
            return [total + self._own[n] for total, n in zip(found, done, strict=False)]
        return found

    @property
    def _offsets(self) -> tuple[int, int]:
        """Bytes of this rank's own before its first reduction, and after."""
        return self._share.held, self._share.held + self._share.kept

    def _held(self, level: Level, done: int, copies: int = 0) -> Held:
        own = self._offsets[done > self._first] + (self._own[done] if self._own else 0)
        gradients, buckets = level
        return Held(gradients + own, buckets, copies)

    def _reduced(self, number: int) -> tuple[Held, Held]:
        """While a bucket is reduced, then while its gradients go to the host."""
        level = self._flow.flushes[number].level
        copies, offload = self._flushes[number]
        own = self._own[number] - self._own[number + 1] if self._own else 0  # frees come last
        going = self._held(level, number + 1, offload)
        return self._held(level, number, copies), going._replace(gradients=going.gradients + own)

    def _epilogue(self, rules: Rules) -> Held:
        flow = self._flow
        worst = max((self._held(*level) for level in flow.closing), key=_total)
        for number in range(flow.done[-1], len(flow.flushes)):
            worst = max(worst, *self._reduced(number), key=_total)
        if self._share.afterwards:
            reduced = self._held(*flow.closing[-1], self._share.afterwards)
            worst = max(worst, reduced, key=_total)
        if rules.scheme is Scheme.AFTER:
            cast = self._share.cast_itemsizes[0]
            copies = [a * rules.bucket_itemsize + b * cast for a, b in flow.after_copies]
            return self._held(flow.closing[0][0], 0, max(copies, default=0))
        return worst


def _total(held: Held) -> int:
    return held.total


_Costs = tuple[list[tuple[int, int]], int, list[int]]
"""Per reduction: bytes of its copies, of those on the way to the host; the first that is kept for
this rank; bytes that stay of this rank's large gradients, beyond what stays of others', before each
reduction and at the end; nothing where these never differ."""


def _scattered(flow: Flow, tensors: Tensors, rules: Rules, share: Share) -> _Costs:
    """Reduce-scatter: an interleaved input; what is kept lies in the partition's own buffer."""
    kinds = {(flush.sizes, flush.is_apart) for flush in flow.flushes}
    costs = {kind: _scatter(*kind, rules, share) for kind in kinds}
    found = [costs[flush.sizes, flush.is_apart] for flush in flow.flushes]
    return found, len(flow.flushes), []


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
    is_whole = sizes == ((largest, 1),) and largest % ranks == 0  # reduced in place
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


def _reduced(flow: Flow, tensors: Tensors, rules: Rules, share: Share) -> _Costs:
    """All-reduce or reduce to the owners: a flat copy of what several ranks own together."""
    if not flow.flushes:
        return [], 0, []
    extents = _extents(Identity(flow), tensors, *_placing(rules, share))
    parts, rank = extents.parts(share.ranks), share.rank
    spans = extents.ranks(share.ranks)
    own = _own_large(flow, spans, rules, share)
    first = len(flow.flushes)
    costs = [(flush.numel * share.cast_itemsizes[flush.is_apart], 0) for flush in flow.flushes]
    for number, (low, high) in enumerate(spans):
        is_mine = low <= rank <= high
        if not (is_mine or high > low):
            continue
        flush = flow.flushes[number]
        slices = [] if low == high else [flush.numel]
        if slices and rules.is_large(flush.numel):
            slices = extents.slices(flush.members[0], parts, rules.bucket_numel)
        elif share.is_compact and is_mine and len(flush.members) > 1:
            slices = [flush.numel]  # each is added on its own: none is merged with the next
        copies, reduced = _flattened(flush, slices, rules, share)
        largest = extents.largest(flush.members, rank, parts) if is_mine else 0
        offload = 0
        if largest:
            first = min(first, number)
            offload = largest * _NORM_ITEMSIZE if share.offloads else 0
        if largest and share.is_compact:  # the buffer is there before the copies are
            offload = max(offload, copies, reduced + largest * share.compact_itemsize)
        costs[number] = (copies, offload)
    return costs, first, own


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
            if done == _ALIKE:
                break
    return most, reduced


def _own_large(
    flow: Flow, spans: Sequence[tuple[int, int]], rules: Rules, share: Share
) -> list[int]:
    """The last of ``_Costs``."""
    if rules.keeps_large is share.keeps_own_large or not any(flow.large):
        return []
    sign = 1 if share.keeps_own_large else -1
    mine = [
        sign * size if low <= share.rank <= high else 0
        for size, (low, high) in zip(flow.large, spans, strict=True)
    ]
    return [0, *accumulate(mine)]


def _placing(rules: Rules, share: Share) -> tuple[bool, int, int]:
    """What decides where tensors lie: alignment, and the ranks that they are dealt out to."""
    return share.align_tensors, rules.itemsize, share.ranks if share.deals_tensors else 1


class _Extents:
    """Where a flow's tensors and buckets lie in the flat buffers of the groups (stages 1 and 2)."""

    def __init__(
        self, flow: Flow, tensors: Tensors, align_tensors: bool, itemsize: int, dealt: int
    ) -> None:
        groups = [partition.round_robin(group, dealt) for group in tensors.groups]
        self._groups = [tuple(tensors.numels[i] for i in group) for group in groups]
        self._alignment = (align_tensors, itemsize)
        self._of: dict[int, tuple[int, int, int]] = {}  # tensor -> group, first and last element
        self._spans: dict[int, list[tuple[int, int]]] = {}
        for number, (group, numels) in enumerate(zip(groups, self._groups, strict=True)):
            starts, _ = partition.flat_offsets(numels, align_tensors, itemsize)
            for index, start, numel in zip(group, starts, numels, strict=True):
                self._of[index] = (number, start, start + max(numel, 1) - 1)
        self._buckets = [self._bucket(flush.members) for flush in flow.flushes]

    def _bucket(self, members: Sequence[int]) -> list[tuple[int, int, int]]:
        """Per group with tensors in the bucket: its number, first and last element."""
        found: dict[int, tuple[int, int]] = {}
        for index in members:
            group, first, last = self._of[index]
            low, high = found.get(group, (first, last))
            found[group] = (min(low, first), max(high, last))
        return [(group, *extent) for group, extent in found.items()]

    def parts(self, ranks: int) -> list[int]:
        """Elements of a rank's partition of each group's flat buffer."""
        flat = (partition.flat_numel(numels, ranks, *self._alignment) for numels in self._groups)
        return [max(numel // ranks, 1) for numel in flat]

    def ranks(self, ranks: int) -> list[tuple[int, int]]:
        """First and last rank whose partition each bucket touches."""
        known = self._spans.get(ranks)
        if known is None:
            known = self._spans[ranks] = self._ranks(self.parts(ranks))
        return known

    def _ranks(self, parts: Sequence[int]) -> list[tuple[int, int]]:
        if len(parts) == 1:
            part = parts[0]
            return [(low // part, high // part) for [(_, low, high)] in self._buckets]
        spans = [[(a // parts[g], b // parts[g]) for g, a, b in found] for found in self._buckets]
        return [(min(a for a, _ in found), max(b for _, b in found)) for found in spans]

    def slices(self, index: int, parts: Sequence[int], limit: int) -> list[int]:
        """Elements of a tensor in each partition that it touches, but for all that are alike."""
        group, first, last = self._of[index]
        part = parts[group]
        cuts = range((first // part + 1) * part, last + 1, part)
        most = _ALIKE * (limit // part + 2)
        if len(cuts) > most:
            return [cuts[0] - first, *[part] * most]
        return [end - start for start, end in pairwise((first, *cuts, last + 1))]

    def largest(self, members: Sequence[int], rank: int, parts: Sequence[int]) -> int:
        """Elements of the largest piece of a tensor in the rank's partitions."""
        rows = (self._of[i] for i in members)
        pieces = [
            min(high + 1, (rank + 1) * parts[g]) - max(low, rank * parts[g])
            for g, low, high in rows
        ]
        return max(*pieces, 0)


@lru_cache(maxsize=64)
def _extents(
    flow: Identity, tensors: Tensors, align_tensors: bool, itemsize: int, dealt: int
) -> _Extents:
    return _Extents(flow.of, tensors, align_tensors, itemsize, dealt)
