"""Stage 0: plain data parallelism, with or without a 16-bit wrapper, and BF16_Optimizer."""

from zero_sizer.ledger import Category, Entry
from zero_sizer.moments import (
    BETWEEN_MICRO_STEPS,
    FROM_WRAPPING,
    GRADIENTS_HELD,
    Moment,
)
from zero_sizer.plan import Plan, Wrapper
from zero_sizer.units import DType

_ALLREDUCE_NUMEL = 500_000_000  # MEMORY_OPT_ALLREDUCE_SIZE, runtime/engine.py:3073
_STAGE0 = (Wrapper.NONE, Wrapper.FP16_FUSED, Wrapper.FP16_UNFUSED)
_16BIT = (Wrapper.FP16_FUSED, Wrapper.FP16_UNFUSED)


def held_with_accumulation(plan: Plan) -> frozenset[Moment]:
    """Moments at which gradients exist: also between micro steps when they accumulate."""
    return GRADIENTS_HELD | BETWEEN_MICRO_STEPS if plan.accumulates else GRADIENTS_HELD


def _allreduce_numel(plan: Plan) -> int:
    return min(plan.num_trainable, _ALLREDUCE_NUMEL + plan.largest_tensor)


ENTRIES = (
    Entry(
        name="gradients",
        category=Category.GRADIENTS,
        about="ordinary .grad tensors, whole",
        numel=lambda p: p.num_trainable,
        dtype=lambda p: p.model_dtype,
        live=held_with_accumulation,
        when=lambda p: p.wrapper in _STAGE0,
        source="runtime/engine.py:3523-3530",
    ),
    Entry(
        name="allreduce_flatten",
        category=Category.COMMUNICATION,
        about="copy of one bucket of gradients for the all-reduce; the limit is a constant",
        numel=_allreduce_numel,
        dtype=lambda p: p.model_dtype,
        live=frozenset({Moment.REDUCE}),
        when=lambda p: p.wrapper in (*_STAGE0, Wrapper.BF16),
        source="runtime/engine.py:3073,3795-3839",
    ),
    Entry(
        name="allreduce_cast",
        category=Category.COMMUNICATION,
        about="the bucket again in communication_data_type",
        numel=_allreduce_numel,
        dtype=lambda p: p.comm_dtype,
        live=frozenset({Moment.REDUCE}),
        when=lambda p: p.wrapper in (*_STAGE0, Wrapper.BF16) and p.comm_dtype != p.model_dtype,
        source="runtime/engine.py:3795-3839",
    ),
    Entry(
        name="fp32_gradients",
        category=Category.TEMPORARY,
        about="gradients cast to fp32 for the master weights",
        numel=lambda p: p.num_trainable,
        dtype=lambda p: DType.FP32,
        live=frozenset({Moment.CAST, Moment.UPDATE}),
        when=lambda p: p.wrapper in _16BIT,
        source="runtime/fp16/fused_optimizer.py:230-250, runtime/fp16/unfused_optimizer.py",
    ),
    Entry(
        name="fp32_gradients_flattened",
        category=Category.TEMPORARY,
        about="the fp32 gradients again, as one flat buffer",
        numel=lambda p: p.num_trainable,
        dtype=lambda p: DType.FP32,
        live=frozenset({Moment.CAST}),
        when=lambda p: p.wrapper is Wrapper.FP16_FUSED,
        source="runtime/fp16/fused_optimizer.py:230-250",
    ),
    Entry(
        name="fp32_groups_gradient_flat_buffers",
        category=Category.GRADIENTS,
        about="accumulation buffer in grad_accum_dtype, not partitioned",
        numel=lambda p: sum(p.flat_groups),
        dtype=lambda p: p.grad_accum_dtype,
        live=FROM_WRAPPING,
        when=lambda p: p.wrapper is Wrapper.BF16,
        source="runtime/bf16_optimizer.py:190-191",
    ),
    Entry(
        name="bf16_gradients",
        category=Category.GRADIENTS,
        about=".grad of the 16-bit weights, kept until after the step",
        numel=lambda p: p.num_trainable,
        dtype=lambda p: p.model_dtype,
        live=held_with_accumulation,
        when=lambda p: p.wrapper is Wrapper.BF16 and not p.immediate_grad_update,
        source="runtime/bf16_optimizer.py:707-715",
    ),
)
