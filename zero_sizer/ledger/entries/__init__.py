"""Declared allocations of DeepSpeed, one feature a file.

Each module exports ``ENTRIES``; this is the only place that lists them.
"""

from zero_sizer.config.workload import INFERENCE
from zero_sizer.ledger.entries import (
    building,
    checkpointed_inputs,
    forward_backward,
    hpz,
    loading,
    muon,
    offload,
    optimizer,
    optimizer_step,
    optimizer_swap,
    runtime,
    saving,
    stage0,
    swap_pool,
    weights,
    zero3,
    zero12,
)
from zero_sizer.ledger.entry import Entry
from zero_sizer.plan.plan import Plan

ENTRIES: tuple[Entry, ...] = (
    *building.ENTRIES,
    *weights.ENTRIES,
    *loading.ENTRIES,
    *optimizer.ENTRIES,
    *optimizer_step.ENTRIES,
    *muon.ENTRIES,
    *stage0.ENTRIES,
    *zero12.ENTRIES,
    *zero3.ENTRIES,
    *hpz.ENTRIES,
    *offload.ENTRIES,
    *optimizer_swap.ENTRIES,
    *swap_pool.ENTRIES,
    *forward_backward.ENTRIES,
    *checkpointed_inputs.ENTRIES,
    *runtime.ENTRIES,
    *saving.ENTRIES,
)


def of(plan: Plan) -> tuple[Entry, ...]:
    """The entries of a plan's task."""
    if plan.task == INFERENCE:
        from zero_sizer.ledger.entries import inference  # most jobs are trained

        return (*building.ENTRIES, *inference.ENTRIES, *swap_pool.ENTRIES)
    return ENTRIES
