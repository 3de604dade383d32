"""Muon's Newton-Schulz iterations: products of whole matrices, once a step."""

from math import prod

from zero_sizer.plan.plan import Plan, derived
from zero_sizer.speed.step import Step

_STEPS = 5  # ``ns_steps``, which no config sets


def flops_of(shape: tuple[int, ...], method: str) -> int:
    """FLOPs of one matrix's update, or of a stack of them (experts).

    An iteration of ``standard`` makes X Xᵀ, its square and a product with X. ``gram`` iterates on
    X Xᵀ, with one restart, where a matrix is not square (deepspeed 0.19.8
    runtime/zero/muon/original_muon.py:51-150).
    """
    small, large = sorted((shape[0], prod(shape[1:])) if len(shape) == 4 else shape[-2:])
    if method == "gram" and small < large:
        one = 8 * small**2 * large + 28 * small**3
    else:
        one = _STEPS * (4 * small**2 * large + 2 * small**3)
    return one * (prod(shape[:-2]) if len(shape) == 3 else 1)


@derived
def flops_of_update(plan: Plan) -> tuple[int, int]:
    """FLOPs of updating all matrices that Muon trains, and those of the costliest."""
    rows = zip(plan.group_indices, plan.group_optimizers, strict=True)
    each = [
        flops_of(plan.model.parameters[index].shape, row.newton_schulz)
        for indices, row in rows
        if row.newton_schulz
        for index in indices
        if len(plan.model.parameters[index].shape) > 1
    ]
    return sum(each), max(each, default=0)


def runs(step: Step) -> bool:
    """True if Muon trains any."""
    return any(row.newton_schulz for row in step.plan.group_optimizers)


def seconds(step: Step) -> float:
    """Seconds of a rank's matrices: all without ZeRO, else a share, which the largest may exceed.

    A matrix that a border between partitions cuts is updated on both sides at stages 1 and 2, which
    is left out.
    """
    every, largest = flops_of_update(step.plan)
    if step.plan.stage == 0:
        return every / step.rates.matmul
    return max(every / step.plan.dp_world_size, largest) / step.rates.matmul
