"""Conditions that several features share; each names the line that decides it."""

from zero_sizer.plan import Plan, Wrapper
from zero_sizer.units import DType


def is_zero12(plan: Plan) -> bool:
    """DeepSpeedZeroOptimizer is in charge."""
    return plan.wrapper is Wrapper.ZERO12


def is_zero3(plan: Plan) -> bool:
    """DeepSpeedZeroOptimizer_Stage3 is in charge."""
    return plan.wrapper is Wrapper.ZERO3


def grad_accum_attribute(plan: Plan) -> bool:
    """Gradients accumulate in a per-tensor attribute (stage_1_and_2.py:400-408)."""
    return plan.stage == 1 and plan.grad_accum_dtype != plan.model_dtype


def compact_gradients(plan: Plan) -> bool:
    """Reduced gradients live in one fp32 buffer of the partition's size (stage_1_and_2.py:1250)."""
    return (
        plan.grad_accum_dtype is DType.FP32
        and plan.grad_accum_dtype != plan.model_dtype
        and plan.optimizer.name != "MuonWithAuxAdam"
    )
