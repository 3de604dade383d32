"""Offloading optimizer states and parameters to host and NVMe."""

from collections.abc import Iterator

from zero_sizer.config import engine
from zero_sizer.config.context import (
    OFFLOAD_OPTIMIZER,
    OFFLOAD_PARAM,
    ZERO,
    Context,
    Rule,
    left_out,
)
from zero_sizer.findings import Direction, Finding
from zero_sizer.units import ceil_div
from zero_sizer.zero.partition import tensor_partition

_ADAMS_TENSORS = 4  # master, 2 states, gradient
_SWAPPED_TENSORS = {
    "DeepSpeedCPUAdam": _ADAMS_TENSORS,
    "DeepSpeedCPUAdagrad": 3,
    "DeepSpeedCPULion": _ADAMS_TENSORS,  # it makes Adam's two states
}
_ALWAYS_IN_CPU = 2**20  # elements: what is smaller than two aio blocks is not swapped
_LEAST_SWAPPED = 2**20  # bytes (swap_tensor/utils.py, MIN_AIO_BYTES)
_MANY_SUB_GROUPS = 1000


def ratio_below_stage_3(context: Context) -> Iterator[Finding]:
    """zero/config.py, offload_ratio_check: the device does not matter."""
    ratio = context.number(OFFLOAD_OPTIMIZER + "ratio")
    if ratio is not None and ratio < 1 and context.stage != 3:
        yield context.error(
            "offload-ratio-stage",
            OFFLOAD_OPTIMIZER + "ratio",
            f"ValidationError: partial offload needs stage 3, and this is stage {context.stage}",
            "delete it or use stage 3",
        )


def ratio_needs_cpu_adam(context: Context) -> Iterator[Finding]:
    """stage3.py:316."""
    if not _is_partial(context):
        return
    optimizer = engine.optimizer_class(context)
    if optimizer not in ("DeepSpeedCPUAdam", ""):
        yield context.error(
            "offload-ratio-optimizer",
            OFFLOAD_OPTIMIZER + "ratio",
            f"AssertionError: partial offload knows DeepSpeedCPUAdam only, not {optimizer}",
            "use Adam or AdamW, or delete the ratio",
        )


def ratio_of_one_sub_group(context: Context) -> Iterator[Finding]:
    """stage3.py:1099-1108: sub-group i goes to the host iff i >= int((1 - ratio) * count)."""
    count, ratio = _sub_groups(context), context.number(OFFLOAD_OPTIMIZER + "ratio")
    if _is_partial(context) and count == 1 and ratio:
        yield context.warning(
            "offload-ratio-idle",
            OFFLOAD_OPTIMIZER + "ratio",
            "has no effect: a rank's share of this model is one sub-group, offloaded whole",
            f"lower {ZERO}sub_group_size until there are several",
        )


def _is_partial(context: Context) -> bool:
    ratio = context.number(OFFLOAD_OPTIMIZER + "ratio")
    offloaded = engine.offloads_optimizer(context)
    return context.stage == 3 and offloaded and ratio is not None and ratio < 1


def _sub_groups(context: Context) -> int | None:
    """Sub-groups a rank's parameters fall into, nearly; None without a model."""
    size = context.number(ZERO + "sub_group_size")
    if context.model is None or size is None:
        return None
    if size == 0:
        return sum(tensor.trainable for tensor in context.model.parameters)
    per_rank = tensor_partition(context.model.num_trainable, context.cluster.world_size)
    return ceil_div(per_rank, int(size))


def many_sub_groups(context: Context) -> Iterator[Finding]:
    """stage3.py:2683: the step works on one sub-group after another."""
    count = _sub_groups(context)
    is_zero = context.number(ZERO + "sub_group_size") == 0
    if context.stage == 3 and count is not None and (count > _MANY_SUB_GROUPS or is_zero):
        yield context.warning(
            "small-sub-groups",
            ZERO + "sub_group_size",
            f"cuts each rank's share into {count:,} sub-groups that are stepped one by one (never "
            "smaller than one tensor)",
            "1e9 elements is the default; 1e8 bounds the step's temporaries as well",
        )


def at_stage_0(context: Context) -> Iterator[Finding]:
    """engine.py:1562 asks for no stage: a CPU optimizer meets GPU tensors (cpu_adam.py:148)."""
    if context.stage or not engine.offloads_optimizer(context):
        return
    optimizer = engine.optimizer_class(context)
    key = OFFLOAD_OPTIMIZER + "device"
    reason = f"AssertionError: without ZeRO, {optimizer} is handed tensors that lie on the GPU"
    remedy = "use stage 1 or higher, or delete offload_optimizer"
    if "CPU" not in optimizer:
        yield context.warning("offload-ignored", key, "ignored at stage 0", remedy)
    else:
        is_at_once = engine.model_dtype(context) in ("fp16", "bf16")
        when = "" if is_at_once else ", in the first step"
        yield context.error("offload-stage-0", key, f"{reason}{when}", remedy)


def ignored_by_bf16_optimizer(context: Context) -> Iterator[Finding]:
    """engine.py:1567, 2306: only "cpu" keeps ZeRO's own optimizer."""
    if not engine.uses_bf16_optimizer(context) or context.optimizer_device != "nvme":
        return
    fails = "CPU" in engine.optimizer_class(context)
    say = context.error if fails else context.warning
    reason = (
        "stage 1 with bf16 and fp32 accumulation runs BF16_Optimizer, which keeps everything on "
        "the GPU"
    )
    yield say(
        "offload-ignored",
        OFFLOAD_OPTIMIZER + "device",
        f"AssertionError in the first step: {reason}, and its optimizer is one for the CPU"
        if fails
        else f"ignored: {reason}",
        'write "cpu", or use stage 3',
    )


def nvme_below_stage_3(context: Context) -> Iterator[Finding]:
    """stage_1_and_2.py:220."""
    if engine.uses_zero12(context) and context.optimizer_device == "nvme":
        yield context.warning(
            "nvme-becomes-cpu",
            OFFLOAD_OPTIMIZER + "device",
            f"stage {context.stage} knows no NVMe: the states go to host memory",
            'write "cpu", or use stage 3',
        )


def nvme_path(context: Context) -> Iterator[Finding]:
    """partition_parameters.py:1229; stage3.py:840."""
    if context.stage != 3:
        return
    for section, device, exception in (
        (OFFLOAD_PARAM, context.param_device, "AssertionError"),
        (OFFLOAD_OPTIMIZER, context.optimizer_device, "TypeError"),
    ):
        path = context.value(section + "nvme_path") if device == "nvme" else ""
        if path == "none":  # what accelerate puts where nobody names one
            yield context.warning(
                "nvme-path",
                section + "nvme_path",
                'swap files go to a folder "none" below the one that the job is started in',
                "name a folder on the drive (accelerate: offload_..._nvme_path)",
            )
        if path is None:
            yield context.error(
                "nvme-path",
                section + "nvme_path",
                f"{exception}: offload to NVMe needs a folder on the drive",
                'add "nvme_path": "/local_nvme"',
            )


def nvme_buffers(context: Context) -> Iterator[Finding]:
    """swap_tensor/pipelined_optimizer_swapper.py: up to three sub-groups are in flight.

    With a model their number is known (timeline/remarks.py).
    """
    keys = [OFFLOAD_OPTIMIZER + name for name in ("pipeline_read", "pipeline_write")]
    count = context.number(OFFLOAD_OPTIMIZER + "buffer_count")
    if context.stage != 3 or context.optimizer_device != "nvme" or count is None:
        return
    groups = 1 + [context.flag(key) for key in keys].count(True)
    if context.model is None and groups > 1 and count < groups * _ADAMS_TENSORS:
        yield context.warning(
            "nvme-buffers",
            OFFLOAD_OPTIMIZER + "buffer_count",
            f"{count:g} buffers run out in the first or second step where reads or writes are "
            f"pipelined: Adam has 4 tensors in each of up to {groups} sub-groups in flight",
            f"set it to {groups * _ADAMS_TENSORS}, or disable pipeline_read and pipeline_write",
        )


def nvme_too_few_buffers(context: Context) -> Iterator[Finding]:
    """swap_tensor/utils.py:195, partitioned_optimizer_swapper.py:84: a sub-group's tensors at once.

    partitioned_param_swapper.py:355 for parameters.
    """
    if context.stage != 3:
        return
    count = context.number(OFFLOAD_OPTIMIZER + "buffer_count")
    needed = _SWAPPED_TENSORS.get(engine.optimizer_class(context), 1)
    is_used = count == 0 or _is_swapped(context, together=True, itemsize=4)
    if context.optimizer_device == "nvme" and count is not None and count < needed and is_used:
        exception = "AssertionError in the first step" if count else "IndexError"
        yield context.error(
            "nvme-buffer-count",
            OFFLOAD_OPTIMIZER + "buffer_count",
            f"{exception}: {count:g} buffers, and master weights, states and gradient of a "
            f"sub-group take {needed}",
            f"set it to {max(needed, _ADAMS_TENSORS)} or more",
        )
    count = context.number(OFFLOAD_PARAM + "buffer_count")
    if context.param_device == "nvme" and count == 0 and _is_swapped(context, itemsize=2):
        yield context.error(
            "nvme-buffer-count",
            OFFLOAD_PARAM + "buffer_count",
            "AssertionError: without a buffer no parameter can be swapped",
            "5 is the default",
        )


def _is_swapped(context: Context, *, itemsize: int, together: bool = False) -> bool:
    """Whether anything may be large enough for NVMe; without a model it is.

    swap_tensor/optimizer_utils.py:231, partitioned_param_swapper.py:141.

    Args:
        context: the job.
        itemsize: bytes of an element.
        together: a rank's share lies in one tensor, not in one for each parameter.
    """
    if context.model is None or not context.model.exact_tensors:
        return True
    ranks = context.cluster.world_size
    parts = [tensor_partition(tensor.numel, ranks) for tensor in context.model.parameters]
    most = sum(parts) if together else max(parts, default=0)
    least = max(_LEAST_SWAPPED, context.number("aio.block_size") or 0)
    return most * itemsize >= least


def nvme_small_buffers(context: Context) -> Iterator[Finding]:
    """partitioned_param_swapper.py:141, 357: a buffer takes one partition.

    Each is written to NVMe when it is made; what ``max_in_cpu`` keeps in memory is read back later.
    """
    size = context.number(OFFLOAD_PARAM + "buffer_size")
    model, ranks = context.model, context.cluster.world_size
    if context.stage != 3 or context.param_device != "nvme" or model is None or size is None:
        return
    largest = max(model.parameters, key=lambda tensor: tensor.numel, default=None)
    numel = tensor_partition(largest.numel, ranks) if largest is not None else 0
    if largest is None or numel <= max(size, _ALWAYS_IN_CPU) or not model.exact_tensors:
        return
    yield context.error(
        "nvme-buffer-size",
        OFFLOAD_PARAM + "buffer_size",
        f"AssertionError: a buffer holds {size:,.0f} elements, and a rank's partition of "
        f"{largest.name} is {numel:,}",
        f"set it to {numel:,} or more",
    )


def nvme_stays_in_ram(context: Context) -> Iterator[Finding]:
    """partition_parameters.py and stage3.py: max_in_cpu elements are kept in host memory first."""
    limit = context.number(OFFLOAD_PARAM + "max_in_cpu")
    if context.stage != 3 or context.param_device != "nvme" or context.model is None:
        return
    per_rank = tensor_partition(context.model.num_trainable, context.cluster.world_size)
    if limit is not None and per_rank <= limit:
        yield context.warning(
            "nvme-unused",
            OFFLOAD_PARAM + "max_in_cpu",
            f"a rank's {per_rank:,} parameters are fewer than max_in_cpu {limit:,.0f}, so all of "
            "them stay in host memory and none is swapped",
            "set it to 0 to use the drive",
        )


def param_below_stage_3(context: Context) -> Iterator[Finding]:
    """Only stage 3 reads offload_param."""
    if context.stage < 3 and context.param_device != "none":
        yield context.warning(
            "offload-param-stage",
            OFFLOAD_PARAM + "device",
            f"ignored: parameters can be offloaded at stage 3 only, and this is {context.stage}",
            "use stage 3, or delete offload_param",
        )


def param_alone(context: Context) -> Iterator[Finding]:
    """Legal, but the larger part stays."""
    offloaded = context.stage == 3 and context.param_device != "none"
    if offloaded and not engine.offloads_optimizer(context):
        yield context.note(
            "offload-param-alone",
            OFFLOAD_PARAM + "device",
            "the fp32 master weights and optimizer states, the larger part, stay on the GPU",
            'add "offload_optimizer": {"device": "cpu"}',
        )


def param_always_pinned(context: Context) -> Iterator[Finding]:
    """stage3.py:906."""
    key = OFFLOAD_PARAM + "pin_memory"
    if context.stage == 3 and context.param_device != "none" and not context.flag(key):
        yield context.warning(
            "pin-memory-ignored",
            key,
            "ignored: the host copy of the parameters is pinned whatever it says",
            "delete it",
        )


def fetched_by_all_reduce(context: Context) -> Iterator[Finding]:
    """partition_parameters.py:1447: each parameter is a view of the buffer of all of a call.

    One that stays before the first step keeps that buffer: 10 to 15 % of a small model's peak.
    """
    key = ZERO + "stage3_use_all_reduce_for_fetch_params"
    accumulates = (context.number("gradient_accumulation_steps") or 1) > 1
    if context.stage == 3 and context.param_device != "none" and accumulates and context.flag(key):
        found = context.warning(
            "fetched-by-all-reduce",
            key,
            "weights that are fetched by all-reduce are views of one buffer, which lives as long "
            "as any of them; with gradient accumulation that is not counted before the first step",
            "delete the key: weights are fetched by all-gather then",
        )
        yield left_out(found, Direction.COST, device="gpu")


def pinned_rounding(context: Context) -> Iterator[Finding]:
    """Torch ATen/core/CachingHostAllocator.h: each pinned request becomes a power of two."""
    key = OFFLOAD_OPTIMIZER + "pin_memory"
    if context.stage and engine.offloads_optimizer(context) and context.flag(key):
        yield context.note(
            "pinned-rounding",
            key,
            "torch rounds every pinned buffer up to a power of two: 4.1 GiB becomes 8 GiB",
            "PYTORCH_ALLOC_CONF=pinned_max_round_threshold_mb:1024 limits it; pin_memory false "
            "avoids it, at the price of slower copies",
        )


def brought_optimizer(context: Context) -> Iterator[Finding]:
    """engine.py:2349: a torch optimizer from the script is refused under offload."""
    offloaded = context.stage and engine.offloads_optimizer(context)
    brought = not context.text("optimizer.type") and context.flag("zero_force_ds_cpu_optimizer")
    if offloaded and brought:
        yield context.note(
            "offload-client-optimizer",
            OFFLOAD_OPTIMIZER + "device",
            "the training script must bring DeepSpeedCPUAdam or DeepSpeedCPULion, or "
            "ZeRORuntimeException is raised (accelerate swaps torch's Adam and AdamW itself)",
            "name the optimizer in the config",
        )


def gpu_direct_storage(context: Context) -> Iterator[Finding]:
    """swap_tensor/aio_config.py:39."""
    if context.flag("aio.use_gds"):
        yield context.note(
            "gds-needs-cuda", "aio.use_gds", "AssertionError on anything but an NVIDIA GPU"
        )


RULES: tuple[Rule, ...] = (
    ratio_below_stage_3,
    ratio_needs_cpu_adam,
    ratio_of_one_sub_group,
    many_sub_groups,
    at_stage_0,
    ignored_by_bf16_optimizer,
    nvme_below_stage_3,
    nvme_path,
    nvme_buffers,
    nvme_too_few_buffers,
    nvme_small_buffers,
    nvme_stays_in_ram,
    param_below_stage_3,
    param_alone,
    param_always_pinned,
    fetched_by_all_reduce,
    pinned_rounding,
    brought_optimizer,
    gpu_direct_storage,
)
