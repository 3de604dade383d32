"""Conditions that several features share; each names the line that decides it."""

from zero_sizer.plan import Device, Plan
from zero_sizer.zero.wrapper import Wrapper


def is_zero12(plan: Plan) -> bool:
    """DeepSpeedZeroOptimizer is in charge."""
    return plan.wrapper is Wrapper.ZERO12


def is_zero3(plan: Plan) -> bool:
    """DeepSpeedZeroOptimizer_Stage3 is in charge."""
    return plan.wrapper is Wrapper.ZERO3


def is_swapped(plan: Plan, numel: int) -> bool:
    """A sub-group of ``numel`` lives on NVMe (swap_tensor/optimizer_utils.py)."""
    if plan.optimizer_device is not Device.NVME or plan.stage < 3:
        return False
    return numel * plan.master_dtype.itemsize >= max(2**20, plan.aio_block_size)
