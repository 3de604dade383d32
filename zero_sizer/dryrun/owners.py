"""Tensors that a DeepSpeed engine owns, attribute by attribute, under DeepSpeed's own names.

The tables name attributes of DeepSpeed 0.19.8's optimizer wrappers (``runtime/zero/stage_1_and_2``,
``runtime/zero/stage3``, ``runtime/bf16_optimizer``, ``runtime/fp16/{fused,unfused}_optimizer``). A
wrapper has some of them; the rest are skipped. The first owner of a storage gets its bytes, so the
order of ``owned`` matters: flat buffers before the parameters that are views of them.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from zero_sizer.util.records import dataclass

# Where a storage lies on a machine with GPUs, when the run itself has none.
GPU = "gpu"
HOST = "host"
WITH_OPTIMIZER = "with optimizer"  # on the host with offload_optimizer
WITH_OFFLOADED_PARAMETERS = "with offloaded parameters"

_FLAT_PARAMETERS = {
    "bit16_groups_flat": GPU,  # ZeRO-1/2
    "lp_param_buffer": GPU,  # ZeRO-3
    "param_groups_fp16_flat_cpu_memory": HOST,  # ZeRO-3 with offload_param
    "bf16_groups_flat": GPU,  # BF16_Optimizer
    "fp16_groups_flat": GPU,  # FP16_Optimizer
}
_MASTER_WEIGHTS = (
    "single_partition_of_fp32_groups",
    "fp32_partitioned_groups_flat",
    "fp32_groups_flat_partition",
    "fp32_groups_flat",
    "fp32_groups",
)
_GRADIENTS = {
    "grad_partitions_flat_buffer": WITH_OPTIMIZER,  # ZeRO-3
    "accumulated_grads_in_cpu": HOST,
    "grads_in_partition": GPU,  # ZeRO-1/2: whole tensors that touch this rank's partition
    "all_grad_tensors": GPU,
    "averaged_gradients": GPU,
    "fp32_groups_gradients_flat": GPU,  # BF16_Optimizer: not partitioned
    "_muon_pending_momentum": GPU,
}
_COMMUNICATION = {
    "temp_grad_buffer_for_gpu_offload": GPU,
    "_muon_allgather_buffers": GPU,
    "extra_large_param_to_reduce": GPU,
}
_OFFLOAD = {
    "param_buffer_of_bit16_for_cpu_offload_groups": HOST,
    "temp_grad_buffer_for_cpu_offload": HOST,
}


@dataclass(frozen=True, kw_only=True)
class Owner:
    """An attribute and the tensors it keeps alive.

    Attributes:
        name: DeepSpeed's name for it.
        category: one of ``recording.CATEGORIES``.
        place: ``GPU``, ``HOST`` or a rule that ``placement`` resolves.
        value: a tensor or any nesting of containers of tensors.
    """

    name: str
    category: str
    place: str
    value: Any


def owned(engine: Any) -> Iterator[Owner]:
    """Everything the engine keeps alive, most specific owner first."""
    wrapper = engine.optimizer
    base = getattr(wrapper, "optimizer", wrapper)
    if wrapper is not None:
        yield from _attributes(wrapper, "parameters", _FLAT_PARAMETERS)
        yield from _masters(wrapper)
        yield from _optimizer_states(base)
        yield from _optimizer_states(getattr(wrapper, "backup_optimizer", None))
        yield from _optimizer_states(getattr(engine, "basic_optimizer", None))  # Adagrad's first
        yield from _attributes(wrapper, "gradients", _GRADIENTS)
        yield from _attributes(wrapper, "communication_buffers", _COMMUNICATION)
        yield from _ipg_buckets(wrapper)
        yield from _attributes(wrapper, "offload_buffers", _OFFLOAD)
        yield from _swap_buffers(wrapper)
    yield from _module(engine.module)


def _attributes(wrapper: Any, category: str, table: Mapping[str, str]) -> Iterator[Owner]:
    for name, place in table.items():
        value = getattr(wrapper, name, None)
        if value is not None:
            yield Owner(name=name, category=category, place=place, value=value)


def _masters(wrapper: Any) -> Iterator[Owner]:
    on_gpu = gpu_sub_groups(wrapper)
    for name in _MASTER_WEIGHTS:
        for index, master in enumerate(getattr(wrapper, name, None) or ()):
            place = GPU if index < on_gpu else WITH_OPTIMIZER
            yield Owner(name=name, category="master_weights", place=place, value=master)
            grad = [tensor.grad for tensor in _as_list(master) if tensor.grad is not None]
            yield Owner(name=f"{name}.grad", category="gradients", place=place, value=grad)


def gpu_sub_groups(wrapper: Any) -> int:
    """Leading ZeRO-3 sub groups that ``offload_optimizer.ratio`` keeps on the GPU (0 without)."""
    if not getattr(wrapper, "offload_optimizer", False):
        return 0
    ratio = getattr(wrapper, "partial_offload", None)
    groups = len(getattr(wrapper, "fp16_partitioned_groups_flat", ()))
    return int((1 - ratio) * groups) if ratio is not None else 0


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _optimizer_states(base: Any) -> Iterator[Owner]:
    defaults = getattr(base, "defaults", {})
    # torch keeps its step counters on the host otherwise.
    steps_beside = defaults.get("fused") or defaults.get("capturable")
    for state in getattr(base, "state", {}).values():
        for name, value in state.items() if isinstance(state, Mapping) else ():
            place = HOST if name == "step" and not steps_beside else WITH_OPTIMIZER
            yield Owner(name=name, category="optimizer_states", place=place, value=value)
    overflow = getattr(base, "_dummy_overflow_buf", None)
    yield Owner(name="_dummy_overflow_buf", category="other", place=GPU, value=overflow)


def _ipg_buckets(wrapper: Any) -> Iterator[Owner]:
    buckets = getattr(wrapper, "ipg_buckets", None)
    for bucket in (buckets or {}).values():
        name, category = "ipg_buckets.buffer", "communication_buffers"
        yield Owner(name=name, category=category, place=GPU, value=bucket.buffer)


def _swap_buffers(wrapper: Any) -> Iterator[Owner]:
    swapper = getattr(wrapper, "optimizer_swapper", None)
    manager = getattr(swapper, "swap_buffer_manager", None)
    for name, value in (
        ("swap_buffer_manager.all_buffers", getattr(manager, "all_buffers", None)),
        ("gradient_swapper.swap_buffers", _gradient_swap_buffers(swapper)),
    ):
        yield Owner(name=name, category="offload_buffers", place=HOST, value=value)


def _gradient_swap_buffers(swapper: Any) -> Any:
    buffers = getattr(getattr(swapper, "gradient_swapper", None), "swap_buffers", None)
    return [getattr(buffer, "buffer", None) for buffer in buffers or ()]


def _module(module: Any) -> Iterator[Owner]:
    for param in module.parameters():
        yield from _partition(param)
        if not getattr(param, "ds_persist", False) and hasattr(param, "ds_tensor"):
            yield Owner(name="gathered", category="parameters", place=GPU, value=param.data)
        else:
            persistent = hasattr(param, "ds_tensor")
            name = "persistent_parameters" if persistent else "module.parameters"
            yield Owner(name=name, category="parameters", place=GPU, value=param.data)
        for name in ("grad", "grad_accum"):
            grad = getattr(param, name, None)
            yield Owner(name=f"param.{name}", category="gradients", place=GPU, value=grad)
    for buffer in module.buffers():
        yield Owner(name="module.buffers", category="model_buffers", place=GPU, value=buffer)


def _partition(param: Any) -> Iterator[Owner]:
    swapper = getattr(param, "nvme_swapper", None)
    if swapper is not None:
        buffers = getattr(swapper, "buffers", None)
        name = "param_swapper.buffers"
        yield Owner(name=name, category="offload_buffers", place=HOST, value=buffers)
    for name in ("ds_tensor", "ds_secondary_tensor"):
        value = getattr(param, name, None)
        # Persistence is decided after partitioning, so persistent partitions are offloaded too.
        place = WITH_OFFLOADED_PARAMETERS
        yield Owner(name=name, category="parameters", place=place, value=value)
