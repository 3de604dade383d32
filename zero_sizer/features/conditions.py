"""Conditions that several features share; each names the line that decides it."""

from zero_sizer.plan import Plan
from zero_sizer.zero.wrapper import Wrapper


def is_zero12(plan: Plan) -> bool:
    """DeepSpeedZeroOptimizer is in charge."""
    return plan.wrapper is Wrapper.ZERO12


def is_zero3(plan: Plan) -> bool:
    """DeepSpeedZeroOptimizer_Stage3 is in charge."""
    return plan.wrapper is Wrapper.ZERO3
