"""Declared allocations of DeepSpeed, one feature a file.

Each module exports ``ENTRIES``; this is the only place that lists them.
"""

from zero_sizer.ledger.entries import (
    building,
    checkpointed_inputs,
    forward_backward,
    hpz,
    muon,
    offload,
    optimizer,
    optimizer_step,
    runtime,
    saving,
    stage0,
    weights,
    zero3,
    zero12,
)
from zero_sizer.ledger.entry import Entry

ENTRIES: tuple[Entry, ...] = (
    *building.ENTRIES,
    *weights.ENTRIES,
    *optimizer.ENTRIES,
    *optimizer_step.ENTRIES,
    *muon.ENTRIES,
    *stage0.ENTRIES,
    *zero12.ENTRIES,
    *zero3.ENTRIES,
    *hpz.ENTRIES,
    *offload.ENTRIES,
    *forward_backward.ENTRIES,
    *checkpointed_inputs.ENTRIES,
    *runtime.ENTRIES,
    *saving.ENTRIES,
)
