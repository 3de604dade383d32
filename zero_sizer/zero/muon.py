"""Muon's scratch: what orthogonalising whole matrices takes on ranks that hold parts of them.

Newton-Schulz runs on whole gradients and momentums, so ranks gather them. The functions follow
deepspeed 0.19.8 allocation by allocation, names that Python still holds included; DeepSpeed
compiles ``muon_update``, and compiled code may hold less than is counted here.
"""

from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import field
from functools import lru_cache
from math import prod

from zero_sizer.units import MIB, DType, ceil_div
from zero_sizer.util.records import dataclass

Shape = tuple[int, ...]
SubGroups = tuple[tuple[Shape, ...], ...]

_MAX_CACHED = 256 * MIB  # _muon_allgather_max_cached_bytes
_MAX_BUFFER = 64 * MIB  # _muon_allgather_max_buffer_bytes
_FP32 = DType.FP32.itemsize
_STEPS_TO_STEADY = 3  # the first gathers gradients alone, the second fills the cache, then it stays


def update_bytes(shape: Shape, dtype: DType, method: str) -> int:
    """Most that ``muon_update`` holds beside the gradient and the momentum.

    ``runtime/zero/muon/original_muon.py``: the mixing of the momentum, then the iteration in 16
    bits, on the smaller Gram matrix where ``method`` is ``gram`` and the matrix is not square.
    """
    numel = prod(shape)
    square = prod(shape[:-2]) * min(shape[-2:]) ** 2  # experts lie in one tensor
    mixed = {DType.BF16: 5, DType.FP16: 10}.get(dtype, 8) * numel
    if method != "gram" or square == numel:
        return max(8 * numel + 4 * square, mixed)
    return max(mixed, 4 * numel + 8 * square, 2 * numel + 14 * square)


@dataclass
class _Scratch:
    """Live bytes of buffers that come and go, the highest they reach, and a cache among them."""

    live: int = 0
    peak: int = 0
    _cached: OrderedDict[Hashable, int] = field(default_factory=OrderedDict)

    def take(self, num_bytes: int) -> int:
        self.live += num_bytes
        self.peak = max(self.peak, self.live)
        return num_bytes

    def drop(self, num_bytes: int) -> None:
        self.live -= num_bytes

    def passing(self, num_bytes: int) -> None:
        self.drop(self.take(num_bytes))

    def cached(self, key: Hashable, num_bytes: int) -> int:
        """Buffers under a key, kept if they fit; the longest unused ones make room for them.

        Returns:
            Bytes to drop after use: 0 unless they are too many to be kept.
        """
        if key in self._cached:
            self._cached.move_to_end(key)
        elif num_bytes > _MAX_CACHED:
            return self.take(num_bytes)
        else:
            while self._cached and sum(self._cached.values()) + num_bytes > _MAX_CACHED:
                self.drop(self._cached.popitem(last=False)[1])
            self._cached[key] = self.take(num_bytes)
        return 0


@dataclass(frozen=True)
class Work:
    """Bytes of Muon's part of a step.

    Attributes:
        kept: of buffers that wait for the next step.
        peak: most beside those.
    """

    kept: int = 0
    peak: int = 0


def _steady(scratch: _Scratch) -> Work:
    return Work(kept=scratch.live, peak=scratch.peak - scratch.live)


@lru_cache(maxsize=256)
def tensor_by_tensor(shapes: tuple[Shape, ...], dtype: DType, method: str) -> Work:
    """Without ZeRO every rank updates all of them; the update before lingers."""
    scratch = _Scratch()
    before = 0
    for shape in shapes:
        scratch.passing(update_bytes(shape, dtype, method))
        scratch.take(prod(shape) * dtype.itemsize)
        scratch.drop(before)
        before = prod(shape) * dtype.itemsize
    return Work(peak=scratch.peak)


def first_step(shapes: tuple[Shape, ...], dtype: DType, method: str, later: int) -> int:
    """Bytes of the first such step at its worst, beside all momentums and ``later`` bytes.

    Momentums come tensor by tensor, the largest shape first; ``later`` are Adam's states, which
    come after the last update and beside it.
    """
    scratch = _Scratch()
    before = 0
    for shape in sorted(shapes, reverse=True):
        num_bytes = scratch.take(prod(shape) * dtype.itemsize)
        scratch.passing(update_bytes(shape, dtype, method))
        scratch.take(num_bytes)
        scratch.drop(before)
        before = num_bytes
    momentums = scratch.live - before
    return max(before, scratch.peak - momentums - later)


@lru_cache(maxsize=1024)
def all_updates(shapes: tuple[Shape, ...], dtype: DType, method: str) -> int:
    """ZeRO-1 and ZeRO-2 on the GPU: the updates of what a rank touches stay until the step."""
    scratch = _Scratch()
    for shape in shapes:
        scratch.passing(update_bytes(shape, dtype, method))
        scratch.take(prod(shape) * dtype.itemsize)
    return scratch.peak


# --- ZeRO-1 and ZeRO-2 with optimizer offload: stage_1_and_2.py:1956-2123 ----------------------


@dataclass(frozen=True)
class Flat:
    """A ZeRO-1/2 group: where its matrices lie, and the elements of a partition."""

    shapes: tuple[Shape, ...]
    offsets: tuple[int, ...]
    partition: int
    ranks: int

    def owned(self, index: int) -> Iterator[tuple[int, int]]:
        """(rank, elements) of each part of a matrix."""
        start = self.offsets[index]
        end = start + prod(self.shapes[index])
        for rank in range(start // self.partition, (end - 1) // self.partition + 1):
            left = max(start, rank * self.partition)
            yield rank, min(end, (rank + 1) * self.partition) - left


@lru_cache(maxsize=256)
def offloaded12(groups: tuple[Flat, ...], rank: int, method: str) -> Work:
    """Gradients and momentums in fp32, gathered on the GPU batch by batch."""
    scratch = _Scratch()
    for step in range(_STEPS_TO_STEADY):
        scratch.peak = scratch.live
        for number, group in enumerate(groups):
            for batch in _batches(group.shapes):
                buffers = 2 if step else 1
                whole = scratch.take(2 * _FP32 * sum(prod(group.shapes[i]) for i in batch))
                if group.ranks > 1:
                    chunk = _chunk(group, batch, buffers)
                    num_bytes = chunk * buffers * (group.ranks + 1) * _FP32
                    scratch.cached((number, chunk, buffers), num_bytes)
                scratch.passing(_updates_of_batch(group, batch, rank, method))
                scratch.drop(whole)
    return _steady(scratch)


def _batches(shapes: Sequence[Shape]) -> Iterator[list[int]]:
    limit = _MAX_BUFFER // (2 * _FP32)
    batch: list[int] = []
    for index, shape in enumerate(shapes):
        if batch and sum(prod(shapes[i]) for i in batch) + prod(shape) > limit:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _chunk(group: Flat, batch: Sequence[int], buffers: int) -> int:
    """Elements of each buffer that a rank sends at once."""
    per_rank = [0] * group.ranks
    for index in batch:
        for rank, numel in group.owned(index):
            per_rank[rank] += numel
    limit = _MAX_BUFFER // ((group.ranks + 1) * buffers * _FP32)
    return min(max(per_rank), max(1, limit))


def _updates_of_batch(group: Flat, batch: Sequence[int], rank: int, method: str) -> int:
    scratch = _Scratch()
    before = 0
    for index in batch:
        shape = group.shapes[index]
        scratch.passing(update_bytes(shape, DType.FP32, method))
        scratch.take(_FP32 * prod(shape))
        scratch.drop(before)
        before = _FP32 * prod(shape)
        scratch.passing(dict(group.owned(index)).get(rank, 0) * DType.FP64.itemsize)  # its norm
    return scratch.peak


# --- ZeRO-3: stage3.py:1697-1862, 2059-2154, 2588-2680 -----------------------------------------


@dataclass(frozen=True)
class Gathers:
    """How ZeRO-3 gathers for Muon.

    Attributes:
        ranks: ranks of the partition.
        rank: this one.
        dtype: of the gathered gradients and momentums.
        method: ``ns_method``.
        bucket: most elements gathered at once, ``reduce_bucket_size``.
    """

    ranks: int
    rank: int
    dtype: DType
    method: str
    bucket: int

    def part(self, shape: Shape) -> int:
        """Elements of a rank's part."""
        return ceil_div(prod(shape), self.ranks)

    def gather(self, scratch: _Scratch, local: int) -> int:
        """Gather ``local`` elements of each rank; the bytes of the result."""
        size = self.dtype.itemsize
        passing = scratch.cached(local, (self.ranks + 1) * local * size)
        gathered = scratch.take(self.ranks * local * size)
        scratch.drop(passing)
        return gathered


@lru_cache(maxsize=256)
def partitioned(sub_groups: SubGroups, how: Gathers) -> Work:
    """Gradients on the GPU: chunks of a bucket, each rank orthogonalises some and shares them."""
    scratch = _Scratch()
    before = 0
    for _ in range(_STEPS_TO_STEADY):
        scratch.drop(before)
        before, scratch.peak = 0, scratch.live
        for shapes in sub_groups:
            for chunk in _chunks(shapes, how.bucket):
                local = sum(how.part(shape) for shape in chunk)
                if how.ranks == 1:  # the partitions themselves, and clones of the momentums
                    clones = scratch.take(local * how.dtype.itemsize)
                    scratch.passing(_rounds(chunk, how))
                    scratch.drop(clones)
                    continue
                gradients = how.gather(scratch, local)
                clones = scratch.take(local * how.dtype.itemsize)
                momentums = how.gather(scratch, local)
                scratch.passing(_rounds(chunk, how))
                scratch.drop(clones + momentums + before)
                before = gradients  # a loop's name holds them until the next chunk is done
    scratch.drop(before)
    return _steady(scratch)


def _chunks(shapes: Sequence[Shape], limit: int) -> Iterator[list[Shape]]:
    chunk: list[Shape] = []
    for shape in shapes:
        if chunk and sum(map(prod, chunk)) + prod(shape) > limit:
            yield chunk
            chunk = []
        chunk.append(shape)
    if chunk:
        yield chunk


def _rounds(chunk: Sequence[Shape], how: Gathers) -> int:
    """A matrix for each rank at a time; unless all are alike, results pass in padded buffers."""
    scratch, size = _Scratch(), how.dtype.itemsize
    update = before = 0
    for first in range(0, len(chunk), how.ranks):
        shapes = chunk[first : first + how.ranks]
        if how.rank < len(shapes):
            scratch.passing(update_bytes(shapes[how.rank], how.dtype, how.method))
            scratch.take(prod(shapes[how.rank]) * size)
            scratch.drop(update)
            update = prod(shapes[how.rank]) * size
        alike = len(shapes) == how.ranks and len(set(shapes)) == 1
        largest = 0 if alike else max(map(prod, shapes)) * size
        scratch.take(2 * largest)  # what this rank sends: an update and a momentum
        scratch.drop(2 * before)
        for _ in ("updates", "momentums"):  # of the ranks; a loop's name holds one from before
            scratch.take(how.ranks * largest)
            scratch.drop((how.ranks - 1) * before)
        scratch.drop(2 * before)
        before = largest
    return scratch.peak


@lru_cache(maxsize=256)
def offloaded3(sub_groups: Sequence[Sequence[Shape]], how: Gathers, momentum_itemsize: int) -> Work:
    """Gradients on the host: a sub-group's at once, gathered on the GPU."""
    scratch, size = _Scratch(), how.dtype.itemsize
    gathered_before = update = part = 0
    for _ in range(_STEPS_TO_STEADY):
        scratch.drop(gathered_before + update + part)
        gathered_before = update = part = 0
        scratch.peak = scratch.live
        for shapes in sub_groups:
            local = sum(how.part(shape) for shape in shapes)
            parts = scratch.take(local * (_FP32 + momentum_itemsize))
            if how.ranks > 1:
                gathered = how.gather(scratch, 2 * local)
            else:  # the parts themselves, unless they are of another dtype
                converted = [b for b in (_FP32, momentum_itemsize) if b != size]
                gathered = scratch.take(local * size * len(converted))
            scratch.drop(gathered_before)  # held by the names of a loop until it starts anew
            gathered_before = gathered
            for shape in shapes:
                scratch.passing(update_bytes(shape, how.dtype, how.method))
                scratch.take(prod(shape) * size)
                scratch.drop(update)
                update = prod(shape) * size
                scratch.take(2 * how.part(shape) * size)  # of the update, and of the momentum
                scratch.drop(part)
                part = 2 * how.part(shape) * size
                scratch.passing(how.part(shape) * DType.FP64.itemsize)  # its norm
            scratch.drop(parts)
    scratch.drop(gathered_before + update + part)
    return _steady(scratch)


# --- BF16_Optimizer: bf16_optimizer.py:240-296, 436-500 ----------------------------------------


@lru_cache(maxsize=256)
def exchanged(groups: tuple[Flat, ...], rank: int, method: str) -> Work:
    """Only pieces of the momentum that other ranks own are exchanged; gradients are whole."""
    peak = 0
    for group in groups:
        owners = [dict(group.owned(i)) for i in range(len(group.shapes))]
        mine = [
            (shape, parts)
            for shape, parts in zip(group.shapes, owners, strict=True)
            if rank in parts
        ]
        peak = max(peak, _exchange(mine, rank, method))
    return Work(peak=peak)


def _exchange(mine: Sequence[tuple[Shape, dict[int, int]]], rank: int, method: str) -> int:
    scratch = _Scratch()
    for shape, parts in mine:  # what comes in, and what goes to every other owner
        scratch.take(_FP32 * (prod(shape) + (len(parts) - 2) * parts[rank]))
    update = momentum = 0
    for shape, parts in mine:
        num_bytes = _FP32 * prod(shape)
        scratch.take(num_bytes if len(parts) > 1 else 0)
        scratch.drop(momentum)
        momentum = num_bytes if len(parts) > 1 else 0
        gradient = scratch.take(num_bytes)
        scratch.passing(update_bytes(shape, DType.FP32, method))
        scratch.drop(gradient)
        scratch.take(num_bytes)
        scratch.drop(update)
        update = num_bytes
    return scratch.peak
