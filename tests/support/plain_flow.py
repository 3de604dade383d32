"""Gradients followed for one rank: the rules written a second time, slowly and simply."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from zero_sizer.units import ceil_div, round_up
from zero_sizer.zero import partition
from zero_sizer.zero.gradient_flow import Completion, Scheme, Tensors
from zero_sizer.zero.reduction import Held

_STAGE0_BUCKET = 500_000_000
_NORM_ITEMSIZE = 8
_NORM_CHUNK = 250_000_000


@dataclass(frozen=True, kw_only=True)
class Rules:
    """``gradient_flow.Rules`` and ``reduction.Share`` together."""

    scheme: Scheme
    ranks: int
    rank: int
    itemsize: int
    made_itemsize: int
    bucket_itemsize: int
    bucket_numel: int
    num_buckets: int
    cast_itemsizes: tuple[int, int]
    copies: bool
    kept: int
    held: int
    adds_in_place: bool
    buffers_held: bool
    keeps_large: bool
    clones_large: bool
    whole_groups: bool
    frees_late: bool
    keeps_own: tuple[bool, ...]
    offloads: bool
    master_itemsize: int
    brought_itemsize: int
    part_itemsizes: tuple[int, int]
    accumulated_itemsize: int
    by_owner: bool
    divides_first: bool
    multiplies: bool
    cut_ranks: tuple[int, ...]
    casts_together: bool
    swap_least: int
    swap_unit: int
    compact: tuple[bool, ...]
    compact_itemsize: int
    align_tensors: bool
    deals_tensors: bool
    afterwards: int

    @property
    def is_loose(self) -> bool:
        return not self.bucket_itemsize and self.scheme in (Scheme.HOOKED, Scheme.DEFERRED)


class Step(NamedTuple):
    """One gradient becoming complete: while it is produced, at the worst of its hook, after."""

    before: Held
    hook: Held
    after: Held


@dataclass(frozen=True, kw_only=True)
class Flow:
    """The gradients of one backward.

    Attributes:
        start: before the first gradient.
        steps: parameter index -> its step.
        epilogue: the worst after the last gradient, reduction included.
    """

    start: Held
    steps: dict[int, Step]
    epilogue: Held


def flow(tensors: Tensors, order: tuple[Completion, ...], rules: Rules) -> Flow:
    """Follow a backward in which gradients become complete in ``order``."""
    state = _State(tensors, rules)
    start = state.now()
    steps = {step.parameter: state.produce(step) for step in order}
    return Flow(start=start, steps=steps, epilogue=state.finish())


class _State:
    """The bytes held, as the hooks change them."""

    def __init__(self, tensors: Tensors, rules: Rules) -> None:
        self._numels = tensors.numels
        self._groups = tensors.groups
        self._apart = tensors.apart
        self._order = [i for group in tensors.groups for i in group]
        self._rules = rules
        self._spans = _spans(tensors, rules)
        self._places = _places(tensors, rules)
        self._kept = rules.kept
        self._bucket: list[int] = []  # of those that are open the one that is meant
        self._open: dict[bool, list[int]] = {False: [], True: []}
        self._buffers = 0
        self._reduced: list[int] = []  # gradients that the next reduction frees
        self._group_of = {i: n for n, group in enumerate(tensors.groups) for i in group}
        self._gradients = rules.held
        if rules.buffers_held:
            self._allocate_buffers()

    def now(self, copies: int = 0) -> Held:
        return Held(self._gradients, self._buffers, copies)

    def produce(self, step: Completion) -> Step:
        """A gradient is complete: hooks run."""
        rules = self._rules
        for index in step.makes:
            self._gradients += self._numels[index] * rules.made_itemsize
        before = self.now()
        size = self._numels[step.parameter] * rules.itemsize
        if rules.scheme in (Scheme.HOOKED, Scheme.DEFERRED):
            self._allocate_buffers()
        hook = None
        if rules.made_itemsize != rules.itemsize:
            self._gradients += size
            hook = self.now()
            self._gradients -= self._numels[step.parameter] * rules.made_itemsize
        if rules.adds_in_place:
            self._gradients -= size
        hook = hook or self.now()
        if rules.scheme in (Scheme.HOOKED, Scheme.SCATTERED):
            for other in step.reduces:
                size = self._numels[other] * rules.itemsize
                hook = _worst(hook, self._into_bucket(other, size))
        return Step(before, hook, self.now())

    def finish(self) -> Held:
        """Backward is over: reduce what is left; the worst on the way."""
        rules = self._rules
        worst = self.now()
        if rules.scheme is Scheme.AFTER:
            numels = [self._numels[i] for i in self._order]
            if rules.whole_groups:
                numels = [sum(self._numels[i] for i in group) for group in self._groups]
            return self.now(max(_after_buckets(numels, rules), default=0))
        if rules.scheme is Scheme.DEFERRED:
            for index in self._order:
                size = self._numels[index] * rules.itemsize
                worst = _worst(worst, self._into_bucket(index, size))
        worst = _worst(worst, self._flush(*self._open.values()))
        self._free(self._reduced)
        return _worst(worst, self.now(rules.afterwards))

    def _allocate_buffers(self) -> None:
        rules = self._rules
        self._buffers = rules.num_buckets * rules.bucket_numel * rules.bucket_itemsize

    def _into_bucket(self, index: int, size: int) -> Held:
        """Reduce what would overflow, then put the gradient in; the worst on the way."""
        numel, rules = self._numels[index], self._rules
        worst = self.now()
        self._bucket = self._open[index in self._apart]
        if self._elements + numel > rules.bucket_numel:
            worst = _worst(worst, self._flush(self._bucket))
            self._bucket = self._open[index in self._apart]
        self._bucket.append(index)
        if rules.bucket_itemsize and numel <= rules.bucket_numel:
            self._gradients -= size  # copied into the buffer, its own storage freed
        elif rules.clones_large and self._is_large(numel):
            worst = _worst(worst, self.now()._replace(gradients=self._gradients + size))
        return worst

    def _is_large(self, numel: int) -> bool:
        return bool(self._rules.bucket_itemsize) and numel > self._rules.bucket_numel

    def _flush(self, *buckets: list[int]) -> Held:
        """Reduce buckets, then free what lay in none; the worst on the way."""
        worst, over = self.now(), []
        for bucket in buckets:
            self._bucket = bucket
            if bucket:
                self._free(self._reduced)
                worst = _worst(worst, self._reduce())
                over += [i for i in bucket if not self._stays(i)]
                bucket.clear()
        if self._rules.frees_late:
            self._reduced += over
        else:
            self._free(over)
        return worst

    def _free(self, indices: list[int]) -> None:
        self._gradients -= sum(self._numels[i] for i in indices) * self._rules.itemsize
        indices.clear()

    def _stays(self, index: int) -> bool:
        """True if a reduced gradient lies in the buffer, or its own storage is kept."""
        rules, (first, last, _) = self._rules, self._spans[index]
        if self._is_buffered(self._numels[index]):
            return True
        is_own = rules.scheme is not Scheme.SCATTERED and first <= rules.rank <= last
        if is_own and (self._is_large(self._numels[index]) or rules.is_loose):
            return bool(rules.keeps_own) and rules.keeps_own[self._group_of[index]]
        return rules.keeps_large

    def _reduce(self) -> Held:
        worst = self.now(self._copy_bytes() + self._part_bytes())
        if self._kept and any(self._spans[i][2] for i in self._bucket):
            self._gradients += self._kept
            self._kept = 0
        worst = _worst(worst, self.now(self._offload_bytes()))
        if self._added():
            cast = self._added() * self._rules.compact_itemsize
            if not self._rules.is_loose:
                worst = _worst(worst, self.now(self._copy_bytes()))
            worst = _worst(worst, self.now(self._copy_bytes(is_reduced=True) + cast))
        self._gradients += self._left_bytes()
        return worst

    def _left_bytes(self) -> int:
        """Casts that are not written to NVMe, or not to the last block."""
        rules = self._rules
        if rules.scheme is not Scheme.SCATTERED or not rules.casts_together:
            return 0
        itemsize = rules.master_itemsize or rules.brought_itemsize
        parts = [ceil_div(self._numels[i], rules.ranks) * itemsize for i in self._bucket]
        return sum(p for p in parts if p < rules.swap_least or p % rules.swap_unit)

    def _is_buffered(self, numel: int) -> bool:
        return bool(self._rules.bucket_itemsize) and numel <= self._rules.bucket_numel

    @property
    def _elements(self) -> int:
        return sum(self._numels[i] for i in self._bucket)

    @property
    def _kind(self) -> bool:
        return self._bucket is self._open[True]

    def _copy_bytes(self, *, is_reduced: bool = False) -> int:
        """Bytes of all copies, or of the one that was reduced."""
        rules, cast = self._rules, self._rules.cast_itemsizes[self._kind]
        if rules.scheme is Scheme.SCATTERED:
            return self._scatter_bytes(cast, is_reduced)
        if rules.is_loose:
            flat = rules.itemsize if len(self._bucket) > 1 else 0
            return self._elements * _held(flat, cast, is_reduced)
        flat = rules.bucket_itemsize
        if not rules.copies:
            return self._elements * cast
        if self._added() and len(self._bucket) > 1:
            return self._elements * _held(flat, cast, is_reduced)  # each tensor is a slice
        pieces, last = 0, -1
        for i in self._bucket:
            first, end, _ = self._spans[i]
            pieces += end - first + (first != last)
            last = end
        if pieces > 1 and self._is_large(self._elements):
            return self._piecewise(self._bucket[0], is_reduced)
        # a bucket that lies in one rank's partition is one slice: no copy
        return self._elements * _held(flat if pieces > 1 else 0, cast, is_reduced)

    @property
    def _is_cut(self) -> bool:
        """The bucket's buffer is all-reduced, and cut into partitions."""
        return not self._rules.copies and self._is_buffered(self._elements)

    def _filled_bytes(self) -> tuple[int, bool]:
        """Partitions of zeros, where this rank's part of a tensor is shorter; whether all are."""
        rules, (rank,) = self._rules, self._rules.cut_ranks
        numels = [self._numels[i] for i in self._bucket]
        parts = [ceil_div(numel, rules.ranks) for numel in numels]
        short = [p for n, p in zip(numels, parts, strict=True) if (rank + 1) * p > n]
        return sum(short) * rules.accumulated_itemsize, len(short) == len(parts)

    def _scatter_bytes(self, cast: int, is_reduced: bool) -> int:
        """The interleaved input; one tensor that needs no padding is reduced in place."""
        rules, numels = self._rules, [self._numels[i] for i in self._bucket]
        if self._is_cut:
            scaled = rules.multiplies * (cast or rules.itemsize)  # divided first: in no plan here
            whole = rules.part_itemsizes[self._kind]
            filled, are_all = self._filled_bytes()
            kept = sum(numels) * (whole or scaled)
            if is_reduced:
                return filled if are_all else kept + filled
            return max(sum(numels) * (scaled + whole), kept + filled)
        copied = 0 if self._is_buffered(sum(numels)) else sum(numels) * cast
        padded = sum(round_up(n, rules.ranks) for n in numels)
        flat = (numels != [padded]) * padded * (cast or rules.itemsize)
        return (flat or copied) if is_reduced else copied + flat  # what was cast goes then

    def _part_bytes(self) -> int:
        """Copies of the reduced partitions in the dtype that is accumulated."""
        parts = [ceil_div(self._numels[i], self._rules.ranks) for i in self._bucket]
        is_scattered = self._rules.scheme is Scheme.SCATTERED and not self._is_cut
        return sum(parts) * self._rules.part_itemsizes[self._kind] * is_scattered

    def _piecewise(self, index: int, is_reduced: bool) -> int:
        """Bytes of the copies of a large gradient's slices: so many at once as pass a bucket."""
        rules, (start, numel, part) = self._rules, self._places[index]
        most, chunk = 0, []
        for rank in range(start // part, (start + numel - 1) // part + 1):
            chunk.append(min(start + numel, (rank + 1) * part) - max(start, rank * part))
            if sum(chunk) > rules.bucket_numel:
                most, chunk = max(most, self._chunk_bytes(chunk, is_reduced)), []
        return max(most, self._chunk_bytes(chunk, is_reduced))

    def _chunk_bytes(self, chunk: list[int], is_reduced: bool) -> int:
        flat = self._rules.bucket_itemsize if len(chunk) > 1 else 0
        return sum(chunk) * _held(flat, self._rules.cast_itemsizes[self._kind], is_reduced)

    def _offload_bytes(self) -> int:
        """Bytes of the copies made of one gradient on its way to the host."""
        rules = self._rules
        if not rules.offloads:
            return 0
        if rules.scheme is Scheme.SCATTERED:
            order = self._bucket if self._is_cut else sorted(self._bucket)
            parts = [ceil_div(self._numels[i], rules.ranks) for i in order]
            freed = [0 if self._is_buffered(self._elements) else self._numels[i] for i in order]
            stays = rules.master_itemsize or rules.brought_itemsize
            worst = 0
            for number, part in enumerate(parts):
                held = max(min(part, _NORM_CHUNK) * _NORM_ITEMSIZE, part * rules.master_itemsize)
                held += sum(parts[:number]) * stays * rules.casts_together
                held -= sum(freed[:number]) * rules.itemsize
                worst = max(worst, part * rules.brought_itemsize + held)
            return worst + (self._part_bytes() or self._copy_bytes(is_reduced=True))
        return self._largest() * _NORM_ITEMSIZE

    def _largest(self) -> int:
        return max(self._spans[i][2] for i in self._bucket)

    def _added(self) -> int:
        """Elements of the largest piece that is added to a partition of fp32."""
        if not any(self._rules.compact):
            return 0
        of = [i for i in self._bucket if self._rules.compact[self._group_of[i]]]
        return max([self._spans[i][2] for i in of], default=0)


def _worst(one: Held, other: Held) -> Held:
    return one if one.total >= other.total else other


def _flat(tensors: Tensors, rules: Rules) -> Sequence[tuple[int, ...]]:
    """Parameters of each group as they lie: dealt out to the ranks, or in order."""
    step = rules.ranks if rules.deals_tensors else 1
    return [tuple(i for r in range(step) for i in group[r::step]) for group in tensors.groups]


def _spans(tensors: Tensors, rules: Rules) -> dict[int, tuple[int, int, int]]:
    """First and last rank that each tensor touches, and its elements in this rank's part."""
    spans: dict[int, tuple[int, int, int]] = {}
    for group in _flat(tensors, rules):
        numels = tuple(tensors.numels[i] for i in group)
        offsets, _ = partition.flat_offsets(numels, rules.align_tensors, rules.itemsize)
        flat = partition.flat_numel(numels, rules.ranks, rules.align_tensors, rules.itemsize)
        part = max(flat // rules.ranks, 1)
        for index, start, numel in zip(group, offsets, numels, strict=True):
            end = start + max(numel, 1)
            left, right = rules.rank * part, (rules.rank + 1) * part
            mine = max(min(end, right) - max(start, left), 0)
            spans[index] = (start // part, (end - 1) // part, mine)
    return spans


def _places(tensors: Tensors, rules: Rules) -> dict[int, tuple[int, int, int]]:
    """First element, elements, and the partition's size of each tensor."""
    found: dict[int, tuple[int, int, int]] = {}
    for group in _flat(tensors, rules):
        numels = tuple(tensors.numels[i] for i in group)
        offsets, _ = partition.flat_offsets(numels, rules.align_tensors, rules.itemsize)
        flat = partition.flat_numel(numels, rules.ranks, rules.align_tensors, rules.itemsize)
        for index, start, numel in zip(group, offsets, numels, strict=True):
            found[index] = (start, max(numel, 1), max(flat // rules.ranks, 1))
    return found


def _held(flat: int, cast: int, is_reduced: bool) -> int:
    """Bytes per element of the flat copy and its cast, or of that of the two that was reduced."""
    return (cast or flat) if is_reduced else flat + cast


def _after_buckets(numels: Sequence[int], rules: Rules) -> list[int]:
    """Bytes of each stage-0 bucket's copies; a bucket is closed once it has passed the limit."""
    sizes: list[int] = []
    elements = count = 0
    for position, numel in enumerate(numels):
        elements += numel
        count += 1
        if elements > _STAGE0_BUCKET or position == len(numels) - 1:
            flat = elements * rules.bucket_itemsize if count > 1 else 0
            sizes.append(flat + elements * rules.cast_itemsizes[0])
            elements = count = 0
    return sizes
