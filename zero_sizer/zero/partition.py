"""How DeepSpeed cuts tensors into partitions: the only divisions by the data-parallel size.

Sources: deepspeed 0.19.8 runtime/zero/stage_1_and_2.py:441-505 (flat groups),
runtime/zero/partition_parameters.py:1693 (stage 3 tensors), runtime/zero/stage3.py:1210
(sub-groups).
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import lru_cache
from math import gcd
from typing import NamedTuple, TypeVar

from zero_sizer.units import ceil_div, round_up

_Of = TypeVar("_Of")
_NCCL_ALIGNMENT = 2  # elements: nccl_start_alignment_factor, stage_1_and_2.py:387
_TENSOR_ALIGNMENT_BYTES = 16  # with parameter_alignment, stage_1_and_2.py:444


@lru_cache(maxsize=256)
def grouped(
    numels: tuple[int, ...], groups: tuple[tuple[int, ...], ...]
) -> tuple[tuple[int, ...], ...]:
    """Elements of the tensors of each group, given as indices."""
    return tuple(tuple([numels[i] for i in group]) for group in groups)


@lru_cache(maxsize=4096)
def flat_offsets(
    numels: tuple[int, ...], align_tensors: bool, itemsize: int
) -> tuple[tuple[int, ...], int]:
    """Where each tensor of a ZeRO-1/2 group starts in the flat buffer, and the end of the last.

    Args:
        numels: elements of each tensor, in group order.
        align_tensors: ``zero_optimization.parameter_alignment``.
        itemsize: bytes per element of the model dtype.
    """
    alignment = _TENSOR_ALIGNMENT_BYTES // gcd(_TENSOR_ALIGNMENT_BYTES, itemsize)
    offsets, end = [], 0
    for numel in numels:
        start = round_up(end, alignment) if align_tensors else end
        offsets.append(start)
        end = start + numel
    return tuple(offsets), end


def flat_numel(numels: tuple[int, ...], ranks: int, align_tensors: bool, itemsize: int) -> int:
    """Elements of a ZeRO-1/2 flat group (F): padded so that every rank's part is aligned."""
    return round_up(flat_offsets(numels, align_tensors, itemsize)[1], _NCCL_ALIGNMENT * ranks)


def flat_partition(flat: int, ranks: int) -> int:
    """Elements (or bytes) of one rank's part of a buffer that is padded for all ranks."""
    return flat // ranks


@lru_cache(maxsize=4096)
def touched(
    numels: tuple[int, ...],
    ranks: int,
    align_tensors: bool,
    itemsize: int,
    weights: tuple[int, ...] | None = None,
) -> tuple[int, ...]:
    """Per rank, the elements of all tensors that its partition touches (Q >= P).

    ZeRO-1/2 keep a gradient whole when any of it belongs to the rank
    (``params_in_partition``, stage_1_and_2.py:2184-2203).

    Args:
        numels: elements of each tensor, in flat order.
        ranks: ranks of the partition.
        align_tensors: ``zero_optimization.parameter_alignment``.
        itemsize: bytes per element of the model dtype.
        weights: what to add up instead of each tensor's elements.
    """
    offsets, _ = flat_offsets(numels, align_tensors, itemsize)
    part = flat_partition(flat_numel(numels, ranks, align_tensors, itemsize), ranks)
    totals = [0] * (ranks + 1)  # differences: many ranks may lie inside one tensor
    for start, numel, weight in zip(offsets, numels, weights or numels, strict=True):
        if numel:
            totals[start // part] += weight
            totals[min((start + numel - 1) // part + 1, ranks)] -= weight
    running, per_rank = 0, []
    for difference in totals[:ranks]:
        running += difference
        per_rank.append(running)
    return tuple(per_rank)


def tensor_partition(numel: int, ranks: int) -> int:
    """Elements of one rank's part of one stage-3 tensor: each tensor is padded on its own."""
    return ceil_div(numel, ranks)


def ranks_filled(numel: int, ranks: int) -> int:
    """Ranks whose part of a stage-3 tensor is full; those after them have a shorter one or none."""
    return numel // max(tensor_partition(numel, ranks), 1)


def padded(numel: int, ranks: int) -> int:
    """Elements of the buffer a stage-3 tensor is gathered into."""
    return round_up(numel, ranks)


@lru_cache(maxsize=4096)
def partitions_of(numels: tuple[int, ...], ranks: int) -> tuple[int, ...]:
    """Elements one rank holds of each of a list of stage-3 tensors; their sum is P3."""
    parts = {numel: ceil_div(numel, ranks) for numel in set(numels)}  # few differ
    return tuple(map(parts.__getitem__, numels))


@lru_cache(maxsize=4096)
def sub_groups(numels: tuple[int, ...], ranks: int, limit: int) -> tuple[tuple[int, ...], ...]:
    """Stage-3 sub-groups, as the partition sizes of their tensors.

    A sub-group is closed once its partitions reach ``sub_group_size`` (stage3.py:1210-1233), so it
    may exceed the limit by one tensor.
    """
    groups: list[tuple[int, ...]] = []
    current: list[int] = []
    total = 0
    for part in partitions_of(numels, ranks):
        current.append(part)
        total += part
        if total >= limit:
            groups.append(tuple(current))
            current, total = [], 0
    return (*groups, tuple(current)) if current else tuple(groups)


@lru_cache(maxsize=256)
def persistent(numels: tuple[int, ...], threshold: int, model_limit: int) -> tuple[bool, ...]:
    """Which stage-3 tensors stay gathered.

    In order, each within ``stage3_param_persistence_threshold``, while their sum stays within
    ``stage3_model_persistence_threshold`` (parameter_offload.py:317-335).
    """
    kept: list[bool] = []
    total = 0
    for numel in numels:
        kept.append(numel <= threshold and total + numel <= model_limit)
        total += numel if kept[-1] else 0
    return tuple(kept)


def round_robin(group: tuple[_Of, ...], ranks: int) -> tuple[_Of, ...]:
    """Group order under ``round_robin_gradients``, dealt out to ranks (stage_1_and_2.py:901)."""
    return tuple(of for rank in range(ranks) for of in group[rank::ranks])


class Piece(NamedTuple):
    """A tensor that a ZeRO-1/2 partition touches.

    Attributes:
        number: its place in the group, in flat order.
        numel: its elements.
        inside: those of them that lie in the partition.
    """

    number: int
    numel: int
    inside: int


def span(starts: Sequence[int], part: int, rank: int) -> tuple[int, int]:
    """First of the tensors that a rank's partition touches, and one past the last."""
    return max(bisect_right(starts, rank * part) - 1, 0), bisect_left(starts, (rank + 1) * part)


def touching(
    numels: tuple[int, ...], ranks: int, rank: int, align_tensors: bool, itemsize: int
) -> list[int]:
    """Places in a group of the tensors of which a rank's partition has an element."""
    starts, _ = flat_offsets(numels, align_tensors, itemsize)
    part = flat_partition(flat_numel(numels, ranks, align_tensors, itemsize), ranks)
    first, places = rank * part, range(*span(starts, part, rank))
    return [i for i in places if numels[i] and starts[i] + numels[i] > first]


@lru_cache(maxsize=1024)
def pieces(
    numels: tuple[int, ...], ranks: int, rank: int, align_tensors: bool, itemsize: int
) -> tuple[Piece, ...]:
    """Pieces that a rank's partition of a group is made of; ``numels`` in flat order."""
    starts, _ = flat_offsets(numels, align_tensors, itemsize)
    part = flat_partition(flat_numel(numels, ranks, align_tensors, itemsize), ranks)
    first, end = rank * part, (rank + 1) * part
    found = (
        Piece(i, numels[i], min(starts[i] + numels[i], end) - max(starts[i], first))
        for i in range(*span(starts, part, rank))
    )
    return tuple(piece for piece in found if piece.inside > 0)
