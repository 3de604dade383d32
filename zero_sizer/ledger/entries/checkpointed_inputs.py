"""Inputs of checkpointed blocks that wait in host memory."""

from zero_sizer.activations import select
from zero_sizer.config.workload import DEEPSPEED
from zero_sizer.hardware.device import Device
from zero_sizer.ledger.entry import Category, Entry
from zero_sizer.ledger.moments import AFTER_FIRST_STEP, PASSES
from zero_sizer.plan.plan import Plan
from zero_sizer.units import DType

_POOLED = 64  # max_cpu_buffer_pool_count of _ActivationOffloadEngine
_SOURCE = "runtime/activation_checkpointing/"


def _leave(plan: Plan) -> bool:
    if not (plan.cpu_checkpointing or plan.checkpointing_how.offload):
        return False  # told before the batch is asked for
    inputs = select.inputs_of(plan)
    return inputs is not None and inputs.leave


def _by_deepspeed(plan: Plan) -> bool:
    return _leave(plan) and plan.checkpointing_how.by == DEEPSPEED


def _pooled(plan: Plan) -> int:
    """Buffers of DeepSpeed's pool: the newest input never leaves the GPU."""
    return min(select.num_recomputed(plan) - 1, _POOLED)


def _host(plan: Plan) -> Device:
    return Device.HOST


ENTRIES = (
    Entry(
        name="checkpointed_inputs_saved_on_cpu",
        category=Category.ACTIVATIONS,
        about="inputs of recomputed blocks, offloaded by transformers one by one",
        numel=lambda p: (select.checkpointed_input(p),) * select.num_recomputed(p),
        dtype=lambda p: DType.UINT8,
        live=PASSES,
        when=lambda p: _leave(p) and not _by_deepspeed(p),
        device=_host,
        pinned=lambda p: True,
        source="transformers modeling_utils.py:3151-3158; torch/autograd/graph.py, save_on_cpu",
    ),
    Entry(
        name="cpu_checkpointing_pool",
        category=Category.ACTIVATIONS,
        about="buffers for inputs of recomputed blocks, kept from step to step",
        numel=lambda p: (select.checkpointed_input(p),) * _pooled(p),
        dtype=lambda p: DType.UINT8,
        live=AFTER_FIRST_STEP,
        when=lambda p: _by_deepspeed(p) and not p.partition_activations,
        device=_host,
        pinned=lambda p: True,
        source=_SOURCE + "offload_activations.py:138-175",
    ),
    Entry(
        name="cpu_checkpointing_beyond_the_pool",
        category=Category.ACTIVATIONS,
        about="buffers for inputs of recomputed blocks that the pool does not take back",
        numel=lambda p: (
            (select.checkpointed_input(p),) * (select.num_recomputed(p) - 1 - _pooled(p))
        ),
        dtype=lambda p: DType.UINT8,
        live=PASSES,
        when=lambda p: _by_deepspeed(p) and not p.partition_activations,
        device=_host,
        pinned=lambda p: True,
        source=_SOURCE + "offload_activations.py:138-175",
    ),
    Entry(
        name="partitioned_activations_on_host",
        category=Category.ACTIVATIONS,
        about="inputs of recomputed blocks, or room for as many as number_checkpoints says",
        numel=lambda p: (
            select.checkpointed_input(p) * max(select.num_recomputed(p), p.contiguous_checkpoints)
        ),
        dtype=lambda p: DType.UINT8,
        live=PASSES,
        when=lambda p: _by_deepspeed(p) and p.partition_activations,
        device=_host,
        source=_SOURCE + "checkpointing.py:397-445",
    ),
)
