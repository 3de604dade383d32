"""Host memory while a model is loaded and saved: what is counted, and what may come on top.

Said only where host memory matters: it was stated, or the config offloads to it.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from zero_sizer.config import engine
from zero_sizer.config.context import ZERO, Context, Rule, left_out
from zero_sizer.findings import Direction, Finding
from zero_sizer.units import DType, format_gib, num_bytes

if TYPE_CHECKING:
    from zero_sizer.models.spec import Tensor


def saved_in_every_process(context: Context) -> Iterator[Finding]:
    """Accelerate 1.15 accelerator.py:4093-4095; counted, as ``state_dict_on_host``."""
    model, ranks = context.model, context.cluster.gpus_per_node
    if model is None or context.stage == 3 or ranks == 1 or not _host_matters(context):
        return
    size = sum(num_bytes(tensor.numel, _dtype(context)) for tensor in model.parameters)
    yield context.note(
        "saved-in-every-process",
        ZERO + "stage",
        f"saving: the Trainer and accelerate copy the whole model to host memory in each of the "
        f"{ranks} processes of a node, {format_gib(ranks * size)} together",
        "stage 3 gathers it in one process; DeepSpeed's own save_checkpoint does not copy it",
    )


def experts_split_to_save(context: Context) -> Iterator[Finding]:
    """transformers 5.23 modeling_utils.py:3537: the checkpoint has a tensor for each expert."""
    model = context.model
    if model is None or not model.hf_config or not _host_matters(context):
        return
    experts = sum(t.numel for t in model.parameters if t.is_stacked and _is_saved(context, t))
    if experts:
        size = num_bytes(experts, _dtype(context))
        finding = context.note(
            "experts-split-to-save",
            "--host-memory",
            f"saving: transformers splits the stacked experts back into one tensor each, up to "
            f"{format_gib(size)} of host memory more in the process that writes, not counted",
            "leave that much room",
        )
        yield left_out(finding, Direction.COST, device="host", num_bytes=size)


def experts_stacked_to_load(context: Context) -> Iterator[Finding]:
    """transformers 5.23 core_model_loading.py:1606, 262: one tensor for each expert is read.

    The model itself is counted, and safetensors are read without a copy;
    while such models were loaded, processes took up to four times that
    (https://github.com/Roblox/FAI-RL/issues/66).
    """
    model, ranks = context.model, context.cluster.gpus_per_node
    if model is None or not model.hf_config or model.quantization is not None:
        return
    if _under_zero_init(context) or not _host_matters(context):
        return
    if not any(tensor.is_stacked for tensor in model.parameters):
        return
    each = "the process" if ranks == 1 else f"each of the {ranks} processes of a node"
    finding = context.note(
        "experts-stacked-to-load",
        "--zero-init" if context.stage == 3 else "--host-memory",
        f"loading: {each} builds the whole model in host memory, and transformers stacks the "
        "experts as it reads them: nobody knows how much more that takes, and it is not counted",
        "build under zero.Init, which no process does whole"
        if context.stage == 3
        else "stage 3 builds under zero.Init, which no process does whole",
    )
    yield left_out(finding, Direction.COST, device="host")


def _host_matters(context: Context) -> bool:
    offloads = engine.offloads_optimizer(context) or context.param_device != "none"
    return context.cluster.host_memory is not None or offloads


def _is_saved(context: Context, tensor: "Tensor") -> bool:
    model = context.model
    return tensor.trainable or model is None or model.adapter is None


def _dtype(context: Context) -> DType:
    return DType.FP32 if engine.model_dtype(context) == "fp32" else DType.BF16


def _under_zero_init(context: Context) -> bool:
    zero_init = context.workload.zero_init
    return context.stage == 3 if zero_init is None else zero_init


RULES: tuple[Rule, ...] = (saved_in_every_process, experts_split_to_save, experts_stacked_to_load)
