"""ZeRO-1 and ZeRO-2 (DeepSpeedZeroOptimizer): gradients, buckets, step temporaries."""

from zero_sizer.features.conditions import (
    compact_gradients,
    grad_accum_attribute,
    is_zero12,
)
from zero_sizer.ledger import Category, Entry
from zero_sizer.moments import BACKWARD, BETWEEN_MICRO_STEPS, GRADIENTS_HELD, Moment
from zero_sizer.plan import Plan
from zero_sizer.units import DType

_SOURCE = "runtime/zero/stage_1_and_2.py:"


def _bucket_dtype(plan: Plan) -> DType:
    return plan.grad_accum_dtype if grad_accum_attribute(plan) else plan.model_dtype


def _bucket_moments(plan: Plan) -> frozenset[Moment]:
    # stage 1 leaves the buffers allocated between micro steps: its hook acts at the boundary only
    keeps = plan.stage == 1 and plan.accumulates
    return BACKWARD | BETWEEN_MICRO_STEPS if keeps else BACKWARD


def _whole_gradient_moments(plan: Plan) -> frozenset[Moment]:
    if plan.stage == 1 and plan.accumulates:
        return BACKWARD | BETWEEN_MICRO_STEPS
    return frozenset({Moment.REDUCE})


def _partition_gradient_moments(plan: Plan) -> frozenset[Moment]:
    held = plan.stage == 2 and plan.accumulates
    return GRADIENTS_HELD | BETWEEN_MICRO_STEPS if held else GRADIENTS_HELD


def _num_buckets(plan: Plan) -> int:
    copies = 2 if plan.overlap_comm else 1
    return copies * num_comm_dtypes(plan)


def num_comm_dtypes(plan: Plan) -> int:
    """Communication dtypes in use: autocast adds fp32 for modules outside its list."""
    if plan.autocast_dtype is None:
        return 1
    types = {t.module_type for t in plan.model.parameters if t.trainable}
    return 2 if types - _AUTOCAST_MODULES else 1


_AUTOCAST_MODULES = {"Linear", "Conv1d", "Conv2d", "Conv3d"}  # runtime/torch_autocast.py:15-25


ENTRIES = (
    Entry(
        name="ipg_buckets",
        category=Category.COMMUNICATION,
        about="gradient buckets, of full size however small the model",
        numel=lambda p: (p.reduce_bucket_size,) * _num_buckets(p),
        dtype=_bucket_dtype,
        live=_bucket_moments,
        when=lambda p: is_zero12(p) and (p.contiguous_gradients or p.offloads_optimizer),
        source=_SOURCE + "924-932,3256-3280",
    ),
    Entry(
        name="reduce_flatten",
        category=Category.COMMUNICATION,
        about="copy of a bucket while it is reduced to several ranks",
        numel=lambda p: min(p.reduce_bucket_size, p.num_trainable),
        dtype=lambda p: p.comm_dtype if p.comm_dtype != p.model_dtype else p.model_dtype,
        live=frozenset({Moment.REDUCE}),
        when=lambda p: is_zero12(p) and (p.comm_dtype != p.model_dtype or _splits(p)),
        source=_SOURCE + "2359-2390",
    ),
    Entry(
        name="local_gradients",
        category=Category.GRADIENTS,
        about="stage 1 keeps every gradient until the boundary micro step has reduced it",
        numel=lambda p: p.num_trainable,
        dtype=lambda p: p.model_dtype,
        live=_whole_gradient_moments,
        when=lambda p: is_zero12(p) and p.stage == 1 and not grad_accum_attribute(p),
        source=_SOURCE + "1950-2010",
    ),
    Entry(
        name="grad_accum",
        category=Category.GRADIENTS,
        about="gradients accumulated per tensor in grad_accum_dtype, not partitioned",
        numel=lambda p: p.num_trainable,
        dtype=lambda p: p.grad_accum_dtype,
        live=lambda p: _partition_gradient_moments(p) | _whole_gradient_moments(p),
        when=lambda p: is_zero12(p) and grad_accum_attribute(p),
        source=_SOURCE + "1219-1240",
    ),
    Entry(
        name="grads_in_partition",
        category=Category.GRADIENTS,
        about="whole gradients of every tensor that this rank's partition touches",
        numel=lambda p: p.gradient_numel,
        dtype=lambda p: p.model_dtype,
        live=_partition_gradient_moments,
        when=lambda p: is_zero12(p) and not p.offloads_optimizer and not compact_gradients(p),
        source=_SOURCE + "1024-1045,2184-2203",
    ),
    Entry(
        name="grads_in_partition_of_this_micro_step",
        category=Category.GRADIENTS,
        about="the same again while a later micro step is added to the accumulated ones",
        numel=lambda p: p.gradient_numel,
        dtype=lambda p: p.model_dtype,
        live=frozenset({Moment.REDUCE}),
        when=lambda p: (
            is_zero12(p)
            and p.stage == 2
            and p.accumulates
            and not p.offloads_optimizer
            and not compact_gradients(p)
        ),
        source=_SOURCE + "1024-1045",
    ),
    Entry(
        name="compact_gradient_partition",
        category=Category.GRADIENTS,
        about="this rank's part of the gradients in fp32, on the GPU even when offloading",
        numel=lambda p: p.partitions,
        dtype=lambda p: p.grad_accum_dtype,
        live=_partition_gradient_moments,
        when=lambda p: is_zero12(p) and compact_gradients(p),
        source=_SOURCE + "1259-1326",
    ),
    Entry(
        name="norm_in_fp64",
        category=Category.TEMPORARY,
        about="one gradient slice in fp64 while the norm is taken",
        numel=lambda p: min(p.largest_tensor, p.partition_numel),
        dtype=lambda p: DType.FP64,
        live=lambda p: frozenset({Moment.REDUCE if p.offloads_optimizer else Moment.NORM}),
        when=is_zero12,
        source="runtime/zero/utils.py:59-63",
    ),
    Entry(
        name="flattened_gradient",
        category=Category.TEMPORARY,
        about="the partition's gradients as one flat tensor",
        numel=lambda p: max(p.partitions),
        dtype=lambda p: p.grad_accum_dtype,
        live=frozenset({Moment.CAST}),
        when=lambda p: is_zero12(p) and not p.offloads_optimizer and not compact_gradients(p),
        source=_SOURCE + "3095-3105",
    ),
    Entry(
        name="single_grad_partition",
        category=Category.TEMPORARY,
        about="the flat gradient cast to the master's dtype",
        numel=lambda p: max(p.partitions),
        dtype=lambda p: p.master_dtype,
        live=frozenset({Moment.CAST, Moment.UPDATE}),
        when=lambda p: (
            is_zero12(p) and not p.offloads_optimizer and p.grad_accum_dtype != p.master_dtype
        ),
        source=_SOURCE + "3105-3123",
    ),
)


def _splits(plan: Plan) -> bool:
    """Whether a bucket spans several ranks' partitions."""
    return plan.dp_world_size > 1
