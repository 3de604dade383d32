"""Conditions that several features share; each names the line that decides it."""

from zero_sizer.moments import Moment
from zero_sizer.plan import Device, Plan
from zero_sizer.zero.wrapper import Wrapper

PER_TENSOR = (Wrapper.NONE, Wrapper.FP16_UNFUSED)
"""Wrappers whose optimizer holds tensor by tensor; others hand it flat partitions."""

STEPS_AT_INIT = (Wrapper.FP16_FUSED, Wrapper.FP16_UNFUSED)
"""Wrappers that run a step with gradients of zeros (``initialize_optimizer_states``)."""


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


def has_master(plan: Plan) -> bool:
    """Whether the optimizer updates a copy of the weights."""
    return plan.wrapper is not Wrapper.NONE


def on_host(plan: Plan, index: int) -> bool:
    """Whether partition ``index`` is updated on the host (``ratio``: stage3.py:1099-1108)."""
    if not plan.offloads_optimizer:
        return False
    return plan.stage < 3 or index >= int((1 - plan.optimizer_ratio) * len(plan.partitions))


def flattened_live(plan: Plan) -> frozenset[Moment]:
    """A flat gradient of the master's dtype is what the optimizer is handed; others are cast."""
    needs_cast = plan.grad_accum_dtype != plan.master_dtype
    return frozenset({Moment.CAST} if needs_cast else {Moment.CAST, Moment.UPDATE})


def parked_on(plan: Plan) -> Device:
    """Where a partition waits; one that comes from NVMe passes through the host."""
    return Device.GPU if plan.param_device is Device.GPU else Device.HOST


def under_init(plan: Plan) -> bool:
    """Whether the model is built under ``zero.Init``."""
    return plan.wrapper is Wrapper.ZERO3 and plan.zero_init


def largest_cast(plan: Plan) -> int:
    """The ZeRO-1/2 group at whose flattening and casting most is held.

    Muon's updates are beside its own gradients then, and gone when the next group's turn comes.
    """
    flat, master = plan.grad_accum_dtype.itemsize, plan.master_dtype.itemsize
    held = [
        numel * (flat + (master if master != flat else 0))
        + (plan.itemsize * plan.touched_numel((group,)) if row.newton_schulz else 0)
        for numel, group, row in zip(
            plan.partitions, plan.groups, plan.group_optimizers, strict=True
        )
    ]
    return held.index(max(held)) if held else 0
