"""ZeRO-3 (DeepSpeedZeroOptimizer_Stage3): gathered parameters, gradients, step temporaries."""

from collections.abc import Callable

from zero_sizer.hardware.device import Device
from zero_sizer.ledger.entries.conditions import flattened_live, is_zero3
from zero_sizer.ledger.entry import Category, Entry
from zero_sizer.ledger.moments import FROM_LINKING, Moment
from zero_sizer.plan import sizes
from zero_sizer.plan.plan import Plan
from zero_sizer.timeline.reduction_rules import comm_dtypes
from zero_sizer.units import DType
from zero_sizer.zero.partition import tensor_partition

_SOURCE = "runtime/zero/stage3.py:"


def _bucket(name: str, dtype: Callable[[Plan], DType], when: Callable[[Plan], bool]) -> Entry:
    return Entry(
        name=name,
        category=Category.COMMUNICATION,
        about="gradient bucket, of full size however small the model, from init on",
        numel=lambda p: p.reduce_bucket_size,
        dtype=dtype,
        live=FROM_LINKING,
        when=lambda p: is_zero3(p) and p.contiguous_gradients and when(p),
        source=_SOURCE + "780-784",
    )


def _overflow_check(what: str, dtype: Callable[[Plan], DType]) -> Entry:
    return Entry(
        name=f"overflow_check_{what}",
        category=Category.TEMPORARY,
        about="every gradient partition's values are asked whether they are infinite, all at once",
        numel=sizes.partition_numel,
        dtype=dtype,
        live=frozenset({Moment.OVERFLOW}),
        when=lambda p: is_zero3(p) and sizes.trained_dtype(p) is DType.FP16,
        device=lambda p: Device.HOST if p.offloads_optimizer else Device.GPU,
        source=_SOURCE + "2815,3009-3023 (torch.isinf: ATen/native/TensorCompare.cpp)",
    )


ENTRIES = (
    Entry(
        name="grad_partitions_flat_buffer",
        category=Category.GRADIENTS,
        about="this rank's partition of every gradient, from init on",
        numel=sizes.partition_numel,
        dtype=lambda p: p.grad_accum_dtype,
        live=FROM_LINKING,
        when=is_zero3,
        device=lambda p: Device.HOST if p.offloads_optimizer else Device.GPU,
        pinned=lambda p: p.offloads_optimizer and p.optimizer_pinned,
        source=_SOURCE + "791-795",
    ),
    _bucket("ipg_bucket", lambda p: comm_dtypes(p)[0], lambda p: True),
    _bucket("ipg_bucket_fp32", lambda p: comm_dtypes(p)[1], lambda p: len(comm_dtypes(p)) > 1),
    _overflow_check("magnitudes", lambda p: p.grad_accum_dtype),
    _overflow_check("mask", lambda p: DType.BOOL),
    Entry(
        name="norm_in_fp64",
        category=Category.TEMPORARY,
        about="one gradient partition in fp64 while the norm is taken",
        numel=lambda p: tensor_partition(sizes.largest_tensor(p), p.dp_world_size),
        dtype=lambda p: DType.FP64,
        live=frozenset({Moment.NORM}),
        when=lambda p: is_zero3(p) and not p.offloads_optimizer,
        source="runtime/zero/utils.py:59-63",
    ),
    Entry(
        name="flattened_gradient",
        category=Category.TEMPORARY,
        about="a sub-group's gradients as one flat tensor",
        numel=lambda p: max(sizes.partitions(p), default=0),
        dtype=lambda p: p.grad_accum_dtype,
        live=flattened_live,
        when=lambda p: is_zero3(p) and not p.offloads_optimizer,
        source=_SOURCE + "2683-2692",
    ),
    Entry(
        name="single_grad_partition",
        category=Category.TEMPORARY,
        about="the sub-group's gradient in the master's dtype",
        numel=lambda p: max(sizes.partitions(p), default=0),
        dtype=lambda p: p.master_dtype,
        live=frozenset({Moment.CAST, Moment.UPDATE}),
        when=lambda p: (
            is_zero3(p) and not p.offloads_optimizer and p.grad_accum_dtype != p.master_dtype
        ),
        source=_SOURCE + "2683-2692",
    ),
)
