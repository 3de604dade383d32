"""Keys that the engine never reads, whatever the stage and the model."""

from collections.abc import Iterator

from zero_sizer.checks.ignored import differs_from_default
from zero_sizer.config.context import OFFLOAD_PARAM, ZERO, Context, Rule
from zero_sizer.findings import Finding

_TENSOR = "tensor_parallel"
_NVME_ONLY = ("nvme_path", "buffer_count", "buffer_size", "max_in_cpu")
_READ_BY_NOBODY = {
    ZERO + "allgather_partitions": "weights are all-gathered whatever it says",  # engine.py:1745
    "disable_allgather": "no optimizer asks for it",  # runtime/config.py:491
}
_SWITCHED = {  # section -> the key without which nothing of it counts
    "hybrid_engine": "enabled",
    "torch_autocast": "enabled",
    "expert_parallel": "enabled",
    "data_efficiency": "enabled",
    "compile": "deepcompile",
}


def read_by_nobody(context: Context) -> Iterator[Finding]:
    """Parsed, kept, and asked for by no line of DeepSpeed 0.19.8."""
    for key, why in _READ_BY_NOBODY.items():
        if differs_from_default(context, key):
            yield context.warning("idle-key", key, f"does nothing: {why}", "delete it")


def pipeline(context: Context) -> Iterator[Finding]:
    """deepspeed/__init__.py:552: without a PipelineModule the engine never looks at the section."""
    written = [key for key in context.mapping("pipeline") if key != "stages"]
    if written:
        yield context.warning(
            "idle-key",
            f"pipeline.{written[0]}",
            "does nothing unless the script hands deepspeed.initialize a PipelineModule, whose own "
            "arguments say how many stages there are",
            "delete the section",
        )


def tensor_parallel(context: Context) -> Iterator[Finding]:
    """engine.py:587: autotp_size above 0 alone switches AutoTP on."""
    written = [path for path, _ in context.document.leaves() if path.startswith(_TENSOR + ".")]
    keys = [path for path in written if path != f"{_TENSOR}.autotp_size"]
    if keys and not (context.number(f"{_TENSOR}.autotp_size") or 0) > 0:
        yield context.warning(
            "idle-key",
            keys[0],
            "does nothing: tensor parallelism is off without tensor_parallel.autotp_size",
            f'write "{_TENSOR}": {{"autotp_size": ...}}, or delete the section',
        )


def switched_off(context: Context) -> Iterator[Finding]:
    """Sections of which only the switch is looked at while it is off."""
    for section, switch in _SWITCHED.items():
        paths = {key: f"{section}.{key}" for key in context.mapping(section) if key != switch}
        written = [key for key, path in paths.items() if path in context.settings]
        if written and not context.document.has(f"{section}.{switch}"):
            yield context.warning(
                "idle-key",
                f"{section}.{written[0]}",
                f"does nothing: {section}.{switch} is not set, and its default is false",
                f'add "{switch}": true, or delete the section',
            )


def parameters_without_nvme(context: Context) -> Iterator[Finding]:
    """partition_parameters.py:1229: the swapper, which only stage 3 with device nvme starts."""
    if context.stage == 3 and context.param_device == "nvme":
        return
    for name in _NVME_ONLY:
        if differs_from_default(context, OFFLOAD_PARAM + name):
            yield context.note(
                "ignored-without-nvme",
                OFFLOAD_PARAM + name,
                "ignored: only stage 3 with offload_param.device nvme reads it",
            )


def aio_without_nvme(context: Context) -> Iterator[Finding]:
    """stage3.py:845, partition_parameters.py:1229."""
    swaps = context.stage == 3 and "nvme" in (context.param_device, context.optimizer_device)
    if context.mapping("aio") and not swaps:
        yield context.note(
            "ignored-without-nvme",
            "aio",
            "ignored: only stage 3 with an offload device nvme reads and writes files",
        )


def cpu_optimizer_without_offload(context: Context) -> Iterator[Finding]:
    """engine.py:2344: asked only where the optimizer is offloaded."""
    key = "zero_force_ds_cpu_optimizer"
    if differs_from_default(context, key) and context.optimizer_device == "none":
        yield context.note(
            "ignored-without-offload", key, "ignored: no optimizer is offloaded to the host"
        )


RULES: tuple[Rule, ...] = (
    read_by_nobody,
    pipeline,
    tensor_parallel,
    switched_off,
    parameters_without_nvme,
    aio_without_nvme,
    cpu_optimizer_without_offload,
)
