"""Copies that reductions make: of each, and the most that any can."""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import accumulate
from operator import add
from typing import NamedTuple

from zero_sizer.units import ceil_div, next_power_of_two
from zero_sizer.util.caches import cached_large
from zero_sizer.util.identity import Identity
from zero_sizer.zero import partition
from zero_sizer.zero.extents import ALIKE, extents_of
from zero_sizer.zero.gradient_flow import Flow, Flush, Rules, Sizes, Tensors
from zero_sizer.zero.share import Share

NORM_ITEMSIZE = 8  # the norm of an offloaded gradient is taken in fp64, zero/utils.py:59-63
NORM_CHUNK = 250_000_000  # elements: _constant_buffered_norm2, stage3.py:1908


class Alike:
    """Costs of reductions for a rank that owns nothing of them, each worked out when asked for.

    Args:
        flow: the reductions.
        cost: of one: bytes of its copies, of those on the way to the host, and of the copy that
            was reduced.
        of_kinds: ``cost`` of each of ``Flow.kinds``, where those of a kind cost alike.
        left: bytes that all ranks keep of all reductions before each, and of all; empty: nothing.
    """

    def __init__(
        self,
        flow: Flow,
        cost: Callable[[int], tuple[int, int, int]],
        *,
        of_kinds: Sequence[tuple[int, int, int]] = (),
        left: Sequence[int] = (),
    ) -> None:
        self._flow = flow
        self._cost = cost
        self._of_kinds = of_kinds
        self._left = left
        self._known: dict[int, tuple[int, int, int]] = {}

    def cost(self, number: int) -> tuple[int, int, int]:
        """See ``Alike``."""
        found = self._known.get(number)
        if found is None:
            found = self._known[number] = self._cost(number)
        return found

    @property
    def leaves(self) -> bool:
        """True if all ranks keep some of what is reduced."""
        return bool(self._left)

    def left(self, done: int) -> int:
        """Bytes that all ranks keep of so many reductions."""
        return self._left[done] if self._left else 0

    def with_left(self, totals: Sequence[int], done: Iterable[int]) -> list[int]:
        """``totals`` and what is left of the reductions before each, of which there are some."""
        return list(map(add, totals, map(self._left.__getitem__, done)))

    def total(self, number: int) -> int:
        """Bytes at the worst of a reduction, without what a rank keeps of its own."""
        copies, going, _ = self.cost(number)
        return self._flow.flush_totals[number] + max(copies, going) + self.left(number)

    def hook(self, position: int) -> int:
        """Bytes at the worst of a gradient's hook, without what a rank keeps of its own."""
        flow = self._flow
        worst = flow.totals[1][position] + self.left(flow.hook_done[position])
        for number in range(flow.done[position], flow.done[position + 1]):
            worst = max(worst, self.total(number))
        return worst

    def hooks(self) -> tuple[Sequence[int], int]:
        """``hook`` of each gradient, worked out once for those that are alike; the highest."""
        flow = self._flow
        if not flow.hook_of:
            return flow.totals[1], flow.most[1]
        if not self._of_kinds:
            found = [self.hook(position) for position in range(len(flow.hook))]
            return found, max(found)
        if self._left:
            found = self._hooks_that_leave()
            return found, max(found)
        firsts, kinds = flow.hook_kinds
        of_kinds = [self.hook(position) for position in firsts]
        return list(map(of_kinds.__getitem__, kinds)), max(of_kinds)

    def _hooks_that_leave(self) -> list[int]:
        flow = self._flow
        found = self.with_left(flow.totals[1], flow.hook_done)
        costs = [max(copies, going) for copies, going, _ in self._of_kinds]
        totals = map(add, flow.flush_totals, map(costs.__getitem__, flow.kinds[1]))
        levels = list(map(add, totals, self._left))
        for number, position in flow.hook_of.items():
            if levels[number] > found[position]:
                found[position] = levels[number]
        return found


def scattered(
    flow: Flow, tensors: Tensors, rules: Rules, share: Share, *, leaves: bool = True
) -> Alike:
    """Stage 3; what is kept lies in the partition's own buffer.

    Reduce-scatter takes an interleaved input. Without it the bucket's buffer is all-reduced, but
    what is not in the buffer is reduce-scattered all the same (stage3.py:1673-1678, 1859-1896).

    ``leaves``: what stays on the GPU of what is swapped is counted (``Alike.left``).
    """
    kinds, numbers = flow.kinds
    # those of a kind are taken to have the same order
    firsts = [flow.flushes[numbers.index(kind)] for kind in range(len(kinds))]
    costs = [(*_scatter(flush, tensors, rules, share), 0) for flush in firsts]
    left = _not_swapped(flow, share) if leaves and share.casts_together else []
    return Alike(flow, lambda number: costs[numbers[number]], of_kinds=costs, left=left)


def _not_swapped(flow: Flow, share: Share) -> list[int]:
    """``Alike.left`` of gradients that wait for the step on the GPU.

    DeepSpeed does not write to NVMe what is less than an aligned block, nor what a partition has
    beyond whole ones: a view, which keeps all of it (optimizer_utils.py:256-290, 452-477).
    """
    itemsize = share.master_itemsize or share.brought_itemsize
    kinds, numbers = flow.kinds
    more = []
    for sizes, _ in kinds:
        parts = [(partition.tensor_partition(size, share.ranks) * itemsize, n) for size, n in sizes]
        if share.divides is None:
            parts = [
                (size, n) for size, n in parts if size < share.swap_least or size % share.swap_unit
            ]
        elif share.divides:
            parts = []
        more.append(sum([size * n for size, n in parts]))
    found = [0, *accumulate(map(more.__getitem__, numbers))]
    return found if found[-1] else []


def _scatter(flush: Flush, tensors: Tensors, rules: Rules, share: Share) -> tuple[int, int]:
    """Bytes of a reduction's copies, and of those on the way to the host.

    The bucket's buffer is of the dtype of communication; what is not in it has to be cast.
    """
    sizes, numel, (largest, _) = flush.sizes, flush.numel, flush.sizes[-1]
    cast, parted = share.cast_itemsizes[flush.is_apart], share.part_itemsizes[flush.is_apart]
    is_buffered = bool(rules.bucket_itemsize) and numel <= rules.bucket_numel
    is_cut = is_buffered and not share.copies
    if is_cut:
        made = numel * (cast or rules.itemsize) if share.multiplies else 0
        whole = parted * numel
        found = [_filled_up(sizes, rank, share) for rank in share.cut_ranks]
        copies = max(made + whole, (whole or made) + max([filled for filled, _ in found]))
        kept = max([filled + has_views * (whole or made) for filled, has_views in found])
    else:
        copies = 0 if is_buffered else cast * numel
        if share.divides_first:
            copies = numel * (cast or rules.itemsize)
        divides = largest % share.ranks == 0 if share.divides is None else share.divides
        flat = 0
        if sizes != ((largest, 1),) or not divides:  # else reduced in place
            padded = sum(count * partition.padded(size, share.ranks) for size, count in sizes)
            flat = padded * (cast or rules.itemsize)
        part_numel = sum(count * ceil_div(size, share.ranks) for size, count in sizes)
        scaled = share.divides_first and share.multiplies
        multiplied, parts = scaled * part_numel * (cast or rules.itemsize), parted * part_numel
        # what was reduced is gone when its parts are cast, what was cast for it when it is flat
        kept = parts or multiplied or flat or copies
        copies += flat + multiplied + parts
    if not share.offloads:
        return copies, 0
    members = flush.members if is_cut else sorted(flush.members)
    numels = [tensors.numels[index] for index in members]
    return copies, kept + _going(numels, sizes, share, 0 if is_buffered else rules.itemsize)


def _going(numels: Sequence[int], sizes: Sizes, share: Share, freed: int) -> int:
    """Bytes at the worst of a bucket's way to the host.

    ``partition_grads`` takes the tensors one by one and frees the gradients of those that it has
    taken, ``freed`` bytes per element. What is cast for NVMe stays until all are taken
    (stage3.py:2006-2054).
    """
    takes: dict[int, tuple[int, int]] = {}  # elements -> bytes on the way, and more that stay
    for numel, _ in sizes:
        part = ceil_div(numel, share.ranks)
        made = max(min(part, NORM_CHUNK) * NORM_ITEMSIZE, part * share.master_itemsize)
        cast = part * (share.master_itemsize or share.brought_itemsize)
        stays = share.casts_together * cast - numel * freed
        takes[numel] = part * share.brought_itemsize + made, stays
    worst = there = 0
    if not share.casts_together:  # less and less stays: the first of each size is worst
        return max([takes[numel][0] - before * freed for numel, before in _firsts(tuple(numels))])
    for numel in numels:
        taken, more = takes[numel]
        worst = max(worst, there + taken)
        there += more
    return worst


@lru_cache(maxsize=1024)
def _firsts(numels: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Elements of the first tensor of each size, and of all before it."""
    found: dict[int, int] = {}
    before = 0
    for numel in numels:
        found.setdefault(numel, before)
        before += numel
    return tuple(found.items())


def _filled_up(sizes: Sizes, rank: int, share: Share) -> tuple[int, bool]:
    """Bytes of a rank's partitions that a tensor does not fill; whether it has any others.

    They are zeros that the end of the tensor is copied into; others are views of what is cut
    (``__avg_scatter_contiguous_grads``, stage3.py:1888-1909).
    """
    found, has_views = 0, share.divides is not None
    for size, count in sizes:
        part = ceil_div(size, share.ranks)
        is_short = (rank + 1) * part > size
        if is_short if share.divides is None else not share.divides:
            found += count * part
        else:
            has_views = True
    return found * share.accumulated_itemsize, has_views


@cached_large(maxsize=64)
def of_others(flow: Identity, extents: Identity, rules: Rules, share: Share) -> Alike:
    """Costs of reductions for a rank that owns nothing of them, at stages 1 and 2."""
    parts, flushes = extents.of.parts(share.ranks), flow.of.flushes

    def cost(number: int) -> tuple[int, int, int]:
        flush, (low, high) = flushes[number], extents.of.span(number, parts)
        if rules.is_loose:
            return loose(flush, rules, share)
        if share.by_owner:
            return owner_by_owner(flush, extents.of.runs(number, parts), rules, share)
        if low == high or not share.copies:  # one slice, or no copy of any
            size = flush.numel * share.cast_itemsizes[flush.is_apart]
            return size, 0, size
        slices = [flush.numel]
        if rules.is_large(flush.numel):
            slices = extents.of.slices(flush.members[0], parts, rules.bucket_numel)
        copies, reduced = flattened(flush, slices, rules, share)
        return copies, 0, reduced

    return Alike(flow.of, cost)


def loose(flush: Flush, rules: Rules, share: Share) -> tuple[int, int, int]:
    """``Alike.cost`` of gradients in no buffer: several are made flat (``allreduce_bucket``).

    stage_1_and_2.py:2379-2408, 2484-2570.
    """
    flat = flush.numel * rules.itemsize if len(flush.members) > 1 else 0
    cast = flush.numel * share.cast_itemsizes[flush.is_apart]
    return flat + cast, 0, cast or flat


def owner_by_owner(
    flush: Flush, runs: Sequence[tuple[int, int, int]], rules: Rules, share: Share, rank: int = -1
) -> tuple[int, int, int]:
    """``Alike.cost`` where each owner's slices are reduced on their own, made flat if several.

    ``allreduce_no_retain`` without ``use_multi_rank_bucket_allreduce``, stage_1_and_2.py:1667-1700.

    Args:
        flush: the reduction.
        runs: owner, elements, and how many slices it has.
        rules: of the flow.
        share: of the rank.
        rank: whose slices are meant by what was reduced.
    """
    cast = share.cast_itemsizes[flush.is_apart]
    most = reduced = 0
    for owner, numel, count in runs:
        flat = rules.bucket_itemsize if count > 1 else 0
        most = max(most, numel * (flat + cast))
        if owner == rank:
            reduced = numel * (cast or flat)
    return most, 0, reduced


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
    norm = NORM_ITEMSIZE if share.offloads else 0
    part = 0
    if piece or norm:
        parts = extents_of(Identity(flow), tensors, *placing(rules, share)).parts(share.ranks)
        part = next_power_of_two(max(parts, default=0))  # few numbers, so that bounds are kept
    flat = rules.itemsize if rules.is_loose else rules.bucket_itemsize
    return Costs(flat + max(share.cast_itemsizes), piece, norm, part)


class Ceilings(NamedTuple):
    """Bytes that nothing exceeds, without a rank's own.

    Attributes:
        hooks: of each gradient.
        after: of each reduction after the last gradient, with its number, and of each level there,
            with the negative of its place less one; the highest first.
    """

    hooks: tuple[int, ...]
    after: tuple[tuple[int, int], ...]


@cached_large(maxsize=512)
def ceilings(flow: Identity, costs: Costs) -> Ceilings:
    """See ``Ceilings``."""
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
    after = [(total, ~index) for index, total in enumerate(of.closing_totals[0])]
    after += [(totals[number], number) for number in range(of.done[-1], len(totals))]
    return Ceilings(tuple(hooks), tuple(sorted(after, reverse=True)))


def flattened(flush: Flush, slices: Sequence[int], rules: Rules, share: Share) -> tuple[int, int]:
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


def nothing(number: int) -> tuple[int, int, int]:
    """The cost where nothing is reduced."""
    return 0, 0, 0


def placing(rules: Rules, share: Share) -> tuple[bool, int, int]:
    """Alignment of tensors, and the ranks that they are dealt out to."""
    return share.align_tensors, rules.itemsize, share.ranks if share.deals_tensors else 1
