"""Keys that DeepSpeed reads and then does nothing with, at this stage or for this model."""

from collections.abc import Iterator

from zero_sizer.config import engine
from zero_sizer.config.context import OFFLOAD_OPTIMIZER, ZERO, Context, Rule
from zero_sizer.config.values import shown
from zero_sizer.config.workload import DEEPSPEED
from zero_sizer.findings import Finding

_STAGE_3 = (
    "sub_group_size",
    "stage3_prefetch_bucket_size",
    "stage3_param_persistence_threshold",
    "stage3_model_persistence_threshold",
    "stage3_max_live_parameters",
    "stage3_max_reuse_distance",
    "stage3_gather_16bit_weights_on_model_save",
    "stage3_module_granularity_threshold",
    "stage3_allgather_sequential",
    "stage3_use_all_reduce_for_fetch_params",
    "zero_hpz_partition_size",
    "zero_quantized_weights",
    "zero_quantized_nontrainable_weights",
    "zero_quantized_gradients",
    "memory_efficient_linear",
    "override_module_apply",
    "pipeline_loading_checkpoint",
    "log_trace_cache_warnings",
    "enable_sanity_checks",
    "save_muon_momentum_buffer_in_memory",
)
_STAGES_1_2 = (
    "allgather_bucket_size",
    "round_robin_gradients",
    "parameter_alignment",
    "use_multi_rank_bucket_allreduce",
)
_STAGES_1_TO_3 = (
    "reduce_bucket_size",
    "overlap_comm",
    "contiguous_gradients",
    "reduce_scatter",
)
_NVME_ONLY = ("nvme_path", "buffer_count", "pipeline_read", "pipeline_write", "fast_init")
_USED_AT = {
    **dict.fromkeys(_STAGE_3, (3,)),
    **dict.fromkeys(_STAGES_1_2, (1, 2)),
    **dict.fromkeys(_STAGES_1_TO_3, (1, 2, 3)),
    "ignore_unused_parameters": (2,),
}
_HARMLESS = frozenset(  # concerns no tensor of a running job; many configs carry it along
    {"stage3_gather_16bit_weights_on_model_save", "log_trace_cache_warnings"}
)
_CHECKPOINTING, _PARTITION = "activation_checkpointing", "partition_activations"


def at_this_stage(context: Context) -> Iterator[Finding]:
    """zero/config.py accepts every key at every stage; the optimizers read their own."""
    for name, stages in _USED_AT.items():
        key = ZERO + name
        if context.stage in stages or not differs_from_default(context, key):
            continue
        say = context.note if name in _HARMLESS else context.warning
        yield say(
            "ignored-at-stage",
            key,
            f"ignored at stage {context.stage}: only {_stages(stages)} reads it",
            "delete it, or change the stage",
        )


def _stages(stages: tuple[int, ...]) -> str:
    words = " or ".join(map(str, stages))
    return f"stage {words}"


def differs_from_default(context: Context, key: str) -> bool:
    """True if the user wrote something else than what holds without it."""
    from zero_sizer.config.keys import table

    return context.is_written(key) and context.value(key) != table().keys[key].default


def without_nvme(context: Context) -> Iterator[Finding]:
    """Keys of the swapper, which only stage 3 with device nvme starts."""
    if context.stage == 3 and context.optimizer_device == "nvme":
        return
    for name in _NVME_ONLY:
        key = OFFLOAD_OPTIMIZER + name
        if differs_from_default(context, key):
            yield context.note(
                "ignored-without-nvme",
                key,
                "ignored: only stage 3 with device nvme reads it",
            )


def contiguous_forced(context: Context) -> Iterator[Finding]:
    """stage_1_and_2.py:301."""
    key = ZERO + "contiguous_gradients"
    offloads = engine.uses_zero12(context) and engine.offloads_optimizer(context)
    if offloads and not context.flag(key):
        yield context.warning(
            "contiguous-gradients",
            key,
            "ignored: optimizer offload switches contiguous gradients on",
            "delete it",
        )


def elastic_checkpoint(context: Context) -> Iterator[Finding]:
    """zero/config.py, elastic_checkpoint_deprecated."""
    key = ZERO + "elastic_checkpoint"
    if context.stage == 3 and context.flag(key):
        yield context.warning(
            "elastic-checkpoint",
            key,
            "no longer supported at stage 3: saving raises NotImplementedError",
            "delete it; universal checkpoints replace it",
        )


def legacy_stage_1(context: Context) -> Iterator[Finding]:
    """engine.py:2650."""
    key = ZERO + "legacy_stage1"
    if engine.uses_zero(context) and context.flag(key):
        yield context.error(
            "legacy-stage-1",
            key,
            "Exception: the old implementation of stage 1 was removed in DeepSpeed 0.5.9",
            "delete it",
        )


def activation_checkpointing(context: Context) -> Iterator[Finding]:
    """runtime/activation_checkpointing/checkpointing.py:1121: the engine does not call it."""
    switched_on = [name for name, value in context.mapping(_CHECKPOINTING).items() if value]
    if not switched_on or _is_called(context):
        return
    is_hugging_face = context.model is not None and context.model.hf_config
    say = context.warning if is_hugging_face else context.note
    yield say(
        "checkpointing-section",
        _CHECKPOINTING,
        "has no effect unless the model calls deepspeed.checkpointing.configure and "
        "deepspeed.checkpointing.checkpoint; "
        + ("Hugging Face models do not" if is_hugging_face else "Megatron's do"),
        "gradient_checkpointing of TrainingArguments is the switch for Hugging Face models; where "
        "blocks do go through deepspeed.checkpointing, say --checkpointing-how deepspeed",
    )


def contiguous_checkpoints(context: Context) -> Iterator[Finding]:
    """checkpointing.py:1229-1231 (configure), 400-423 (the first forward)."""
    key = f"{_CHECKPOINTING}.contiguous_memory_optimization"
    if not context.flag(key):
        return
    count = context.value(f"{_CHECKPOINTING}.number_checkpoints")
    missing = [] if context.flag(f"{_CHECKPOINTING}.partition_activations") else [_PARTITION]
    missing += ["number_checkpoints"] if count is None else []
    say = context.error if _is_called(context) else context.warning
    if missing:
        yield say(
            "contiguous-checkpoints",
            key,
            f"AssertionError as soon as the model configures it: {' and '.join(missing)} missing",
            f"add {' and '.join(missing)}",
        )
    elif not isinstance(count, int) or count <= 0:
        yield say(
            "contiguous-checkpoints",
            f"{_CHECKPOINTING}.number_checkpoints",
            "TypeError or IndexError in the first forward: it makes room for so many blocks, and "
            f"{shown(count)} is no whole number above 0",
            "write how many blocks are checkpointed",
        )


def _is_called(context: Context) -> bool:
    """Whether the user says that blocks go through deepspeed.checkpointing."""
    workload = context.workload
    return bool(workload.checkpointing) and workload.checkpointing_how.by == DEEPSPEED


RULES: tuple[Rule, ...] = (
    at_this_stage,
    without_nvme,
    contiguous_forced,
    elastic_checkpoint,
    legacy_stage_1,
    activation_checkpointing,
    contiguous_checkpoints,
)
