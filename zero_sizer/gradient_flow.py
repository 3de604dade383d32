"""What gradients and their buckets hold while backward produces them, parameter by parameter.

Follows the hooks of deepspeed 0.19.8: runtime/zero/stage_1_and_2.py:924-1045 (buckets, gradients
of this rank), 1415-1485 (hook), 1557-1700 and 2355-2390 (reduction);
runtime/zero/stage3.py:1575-1720 (hook, reduce-scatter); runtime/engine.py:3795-3870 (stage 0).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from zero_sizer import partition
from zero_sizer.units import round_up

_STAGE0_BUCKET = 500_000_000  # elements: MEMORY_OPT_ALLREDUCE_SIZE, runtime/engine.py:3073


class Scheme(Enum):
    """How gradients are reduced."""

    AFTER = "after backward, bucket by bucket"  # stage 0, BF16_Optimizer
    DEFERRED = "after backward, through the ZeRO bucket"  # stage 1 without overlap_comm
    HOOKED = "as they are produced, through the ZeRO bucket"  # stage 2, stage 1 with overlap_comm
    SCATTERED = "as they are produced, reduce-scattered"  # stage 3
    KEPT = "not at all: a micro step before the boundary"


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What decides the flow; sizes in bytes per element unless said otherwise.

    Attributes:
        scheme: how gradients are reduced.
        ranks: ranks that partitions are cut for.
        rank: whose memory is meant.
        itemsize: of a gradient.
        bucket_itemsize: of the bucket; 0 without ``contiguous_gradients``.
        bucket_numel: elements of the bucket (``reduce_bucket_size``).
        num_buckets: buckets allocated with the first gradient (stages 1 and 2).
        cast_itemsize: of the copy in communication_data_type; 0 where none is made.
        multi_rank: ``use_multi_rank_bucket_allreduce`` with ``reduce_scatter``.
        keeps_partition: reduced gradients of this rank are kept whole on the GPU.
        held: elements of gradients that earlier micro steps left (whole tensors, same itemsize).
        align_tensors: ``parameter_alignment``.
    """

    scheme: Scheme
    ranks: int
    rank: int
    itemsize: int
    bucket_itemsize: int
    bucket_numel: int
    num_buckets: int
    cast_itemsize: int
    multi_rank: bool
    keeps_partition: bool
    held: int
    align_tensors: bool


@dataclass(frozen=True)
class Step:
    """One gradient becoming complete; bytes beside everything persistent.

    Attributes:
        before: held while the gradient is produced, the gradient itself included.
        hook: highest level inside the hook.
    """

    before: int
    hook: int


@dataclass(frozen=True, kw_only=True)
class Flow:
    """The gradients of one backward.

    Attributes:
        steps: parameter index -> its step.
        epilogue: highest level after the last gradient, reduction included.
        end: level when backward returns.
    """

    steps: dict[int, Step]
    epilogue: int
    end: int


@lru_cache(maxsize=512)
def flow(numels: tuple[int, ...], order: tuple[int, ...], rules: Rules) -> Flow:
    """Follow a backward.

    Args:
        numels: elements of the trainable tensors, in group order (one group).
        order: indices in the order their gradients become complete.
        rules: see there.
    """
    state = _State(numels, rules)
    steps = {index: state.produce(index) for index in order}
    epilogue = state.finish()
    return Flow(steps=steps, epilogue=epilogue, end=state.level)


class _State:
    """The bytes held, as the hooks change them."""

    def __init__(self, numels: tuple[int, ...], rules: Rules) -> None:
        self._numels = numels
        self._rules = rules
        self._bucket: list[int] = []
        self._elements = 0
        self._loose = 0  # bytes of gradients in the bucket's list that are not in its buffer
        self._has_buffer = False
        self._has_partition = False
        self._spans = _spans(numels, rules)
        self.level = rules.held * rules.itemsize

    def produce(self, index: int) -> Step:
        """A gradient is complete: its hook runs."""
        rules = self._rules
        size = self._numels[index] * rules.itemsize
        self.level += size
        before = hook = self.level
        if rules.scheme in (Scheme.HOOKED, Scheme.DEFERRED, Scheme.KEPT):
            self._allocate_buffers()
            hook = self.level
        if rules.scheme in (Scheme.HOOKED, Scheme.SCATTERED):
            hook = max(hook, self._into_bucket(index, size))
        return Step(before, hook)

    def finish(self) -> int:
        """Backward is over: reduce what is left; the highest level."""
        rules = self._rules
        peak = self.level
        if rules.scheme is Scheme.AFTER:
            return peak + max(_after_buckets(self._numels, rules), default=0)
        if rules.scheme is Scheme.KEPT:
            return peak
        if rules.scheme is Scheme.DEFERRED:
            for index, numel in enumerate(self._numels):
                peak = max(peak, self._into_bucket(index, numel * rules.itemsize))
        peak = max(peak, self._flush())
        if rules.scheme in (Scheme.HOOKED, Scheme.DEFERRED):
            self.level -= self._buffer_bytes() if self._has_buffer else 0
        return peak

    def _allocate_buffers(self) -> None:
        if not self._has_buffer:
            self._has_buffer = True
            self.level += self._buffer_bytes()

    def _buffer_bytes(self) -> int:
        rules = self._rules
        return rules.num_buckets * rules.bucket_numel * rules.bucket_itemsize

    def _into_bucket(self, index: int, size: int) -> int:
        """Reduce what would overflow, then put the gradient in; the highest level."""
        numel, rules = self._numels[index], self._rules
        peak = self.level
        if self._elements + numel > rules.bucket_numel:
            peak = self._flush()
        self._bucket.append(index)
        self._elements += numel
        if rules.bucket_itemsize and numel <= rules.bucket_numel:
            self.level -= size  # copied into the buffer, its own storage freed
        else:
            self._loose += size
        return max(peak, self.level)

    def _flush(self) -> int:
        """Reduce the bucket; the highest level on the way."""
        if not self._bucket:
            return self.level
        rules = self._rules
        if rules.scheme is Scheme.SCATTERED:
            copy = _scatter_copy([self._numels[i] for i in self._bucket], rules)
        else:
            copy = self._reduce_copy()
        peak = self.level + copy
        if rules.keeps_partition and not self._has_partition and self._owns_any():
            self._has_partition = True
            self.level += (
                sum(
                    n for n, span in zip(self._numels, self._spans, strict=True) if self._mine(span)
                )
                * rules.itemsize
            )
        peak = max(peak, self.level)
        self.level -= self._loose
        self._bucket, self._elements, self._loose = [], 0, 0
        return peak

    def _mine(self, span: tuple[int, int]) -> bool:
        return span[0] <= self._rules.rank <= span[1]

    def _owns_any(self) -> bool:
        return any(self._mine(self._spans[i]) for i in self._bucket)

    def _reduce_copy(self) -> int:
        """Bytes of the flat copy: none when the bucket lies in one rank's partition."""
        rules = self._rules
        cast = self._elements * rules.cast_itemsize
        if not rules.multi_rank:
            return cast
        pieces = 0
        last = -1
        for i in self._bucket:
            first, end = self._spans[i]
            pieces += end - first + (first != last)
            last = end
        return (self._elements * rules.bucket_itemsize if pieces > 1 else 0) + cast


def _spans(numels: tuple[int, ...], rules: Rules) -> list[tuple[int, int]]:
    """First and last rank whose partition each tensor touches (stages 1 and 2)."""
    if rules.scheme not in (Scheme.HOOKED, Scheme.DEFERRED):
        return [(0, 0)] * len(numels)
    offsets, _ = partition.flat_offsets(numels, rules.align_tensors, rules.itemsize)
    flat = partition.flat_numel(numels, rules.ranks, rules.align_tensors, rules.itemsize)
    part = flat // rules.ranks
    return [
        (start // part, (start + numel - 1) // part)
        for start, numel in zip(offsets, numels, strict=True)
    ]


def _scatter_copy(numels: Sequence[int], rules: Rules) -> int:
    """Bytes of the interleaved input; one tensor that needs no padding is reduced in place."""
    cast = sum(numels) * rules.cast_itemsize
    if not rules.multi_rank:  # reduce_scatter: false reduces the buffer itself
        return cast
    if len(numels) == 1 and numels[0] % rules.ranks == 0:
        return cast
    itemsize = rules.cast_itemsize or rules.itemsize
    return cast + sum(round_up(n, rules.ranks) for n in numels) * itemsize


def _after_buckets(numels: Sequence[int], rules: Rules) -> list[int]:
    """Bytes of each stage-0 bucket's copies; a bucket is closed once it has passed the limit."""
    sizes, elements, count = [], 0, 0
    for position, numel in enumerate(numels):
        elements += numel
        count += 1
        if elements > _STAGE0_BUCKET or position == len(numels) - 1:
            flat = elements * rules.itemsize if count > 1 else 0
            sizes.append(flat + elements * rules.cast_itemsize)
            elements = count = 0
    return sizes
