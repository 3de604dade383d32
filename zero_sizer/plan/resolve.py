"""From settings and job to the Plan; what had to be assumed comes back as findings."""

from collections.abc import Mapping
from math import isfinite
from typing import Any

from zero_sizer.config import resolve, workload
from zero_sizer.config.settings import Setting, Settings
from zero_sizer.config.workload import LIGER_KERNELS
from zero_sizer.findings import Direction, Finding, Severity
from zero_sizer.hardware import assemble
from zero_sizer.hardware.device import Device
from zero_sizer.hardware.workspaces import blas_bytes
from zero_sizer.job import summary
from zero_sizer.job.read import Job
from zero_sizer.models.attention import EAGER, FLASH, supports
from zero_sizer.models.attention import default as default_attention
from zero_sizer.models.positions import longest_sequence
from zero_sizer.models.spec import ModelSpec
from zero_sizer.optimizers import selection, trainer
from zero_sizer.optimizers.table import Optimizer
from zero_sizer.plan.assumptions import Assumptions
from zero_sizer.plan.feed import feed_of_job
from zero_sizer.plan.plan import Plan
from zero_sizer.units import DType
from zero_sizer.util.records import dataclass
from zero_sizer.zero.leaf_modules import LeafModules
from zero_sizer.zero.wrapper import Wrapper, wrapper_of

_DTYPES = {
    "fp32": DType.FP32,
    "float32": DType.FP32,
    "fp16": DType.FP16,
    "float16": DType.FP16,
    "half": DType.FP16,
    "bf16": DType.BF16,
    "bfloat16": DType.BF16,
}
_PIPELINES = ("pipeline_read", "pipeline_write")
_DEVICES = {"none": Device.GPU, "cpu": Device.HOST, "nvme": Device.NVME}
_ASSUMED_SEQ_LEN = 2048
_ZERO = "zero_optimization."


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A plan with the origin of every value a formula can read, and what was assumed.

    Attributes:
        plan: the plan, or None when the job uses an optimizer nobody here knows.
        settings: key or flag -> value and origin.
        findings: assumptions and what could not be planned.
    """

    plan: Plan | None
    settings: Mapping[str, Setting]
    findings: tuple[Finding, ...]


def settings_of(job: Job) -> tuple[Settings, list[Finding]]:
    """A job's config, resolved for its model, flags and ranks; what was found wrong with it."""
    ranks = job.cluster.world_size
    return resolve.resolve(job.document, job.workload, world_size=ranks, model=job.model)


def plan_of(job: Job, settings: Settings) -> Planned:
    """The plan of a training job on its first rank, for sizing, advice and dry runs.

    Args:
        job: as read.
        settings: of ``settings_of``.
    """
    assumed = Assumptions()
    workload = _workload(job, settings, assumed)
    name, params = settings["optimizer.type"], _optimizer_params(job)
    offloads = settings[_ZERO + "offload_optimizer.device"] != "none"
    if name is None:
        swaps = offloads and settings["zero_force_ds_cpu_optimizer"] is not False
        row = trainer.row(job.workload.optim, swaps=swaps)
    else:
        row = selection.choose(name, params, offloads=offloads)
    if row is None:
        assumed.findings.append(_unknown_optimizer(name, job))
        known = {**settings.by_key, **summary.of(job), **assumed.settings}
        return Planned(plan=None, settings=known, findings=tuple(assumed.findings))
    values = {
        **_precision(job, settings, row, params),
        **_offload(settings, row),
        **_zero(settings),
        **_activation_checkpointing(settings),
        **_groups(
            selection.trainer_groups(row, job.model)
            if name is None
            else selection.groups(
                row, params, job.model, offloads=offloads, partitioned=workload["zero_init"]
            )
        ),
        **workload,
        "model": job.model,
        "optimizer": row,
        "dp_world_size": job.cluster.world_size,
        "ranks_per_node": job.cluster.gpus_per_node,
        "rank": 0,
        "gradient_clipping": _number(settings, "gradient_clipping", 1.0),
        "blas_workspace": blas_bytes(job.cluster.gpu),
        "gpu_memory": job.cluster.gpu_memory,
    }
    return Planned(
        plan=Plan(**values),
        settings={**settings.by_key, **summary.of(job), **assumed.settings},
        findings=tuple(assumed.findings),
    )


def _workload(job: Job, settings: Settings, assumed: Assumptions) -> dict[str, Any]:
    micro_batch = settings["train_micro_batch_size_per_gpu"]
    if not _is_positive(micro_batch):
        micro_batch = assumed.take(
            "micro_batch",
            1,
            "neither the config nor a flag says how many samples a GPU takes at once: 1 assumed",
            "give --micro-batch",
            Direction.COST,
        )
    grad_accum = settings["gradient_accumulation_steps"]
    feed = feed_of_job(job, assumed)
    seq_len = job.workload.seq_len if feed is None or feed.has_tokens else 1
    if seq_len is None:
        limit = longest_sequence(job.model) or job.model.arch.max_positions or _ASSUMED_SEQ_LEN
        if feed is not None:
            limit = max(min(limit, feed.most), feed.fewest)
        seq_len = assumed.take(
            "seq_len",
            likely := max(min(limit, _ASSUMED_SEQ_LEN), feed.fewest if feed is not None else 1),
            f"no sequence length was given: {likely} tokens assumed",
            "give --seq-len",
            Direction.EITHER,
        )
    checkpointing = job.workload.checkpointing
    if checkpointing is None:
        checkpointing = assumed.take(
            "checkpointing",
            False,
            "activation checkpointing was not stated: off assumed, as in Hugging Face's defaults",
            "give --checkpointing or --no-checkpointing",
            Direction.SAVE,
        )
    if job.workload.precision is None and _leaves_precision(job, settings):
        assumed.take(
            "precision",
            "fp32",
            'the precision is "auto", and the Trainer\'s flag was not stated: fp32 counted',
            "give --precision bf16, fp16 or fp32",
            Direction.SAVE,
            device="",
        )
    if job.cluster.origins.get("gpus_per_node") == assemble.DEFAULT:
        assumed.take(
            "gpus_per_node",
            job.cluster.gpus_per_node,
            "how many GPUs there are was not stated: 1 assumed",
            "give --gpus-per-node (and --nodes), or a hostfile",
        )
    usual = default_attention(job.model.arch.family)
    attention = job.workload.attention or assumed.take(
        "attention",
        usual,
        f"the attention implementation was not stated: {usual} assumed, transformers' default",
        "give --attention flash, sdpa or eager",
        Direction.SAVE if usual == EAGER and supports(job.model.arch.family, FLASH) else None,
    )
    if job.model.hf_config and not supports(job.model.arch.family, attention):
        attention = usual  # as ``attention-not-there`` says; other packages' classes have their own
    stage = settings[_ZERO + "stage"]
    return {
        "micro_batch": int(micro_batch),
        "grad_accum": int(grad_accum) if _is_positive(grad_accum) else 1,
        "seq_len": seq_len,
        "feed": feed,
        "checkpointing": checkpointing,
        "checkpointing_how": job.workload.checkpointing_how,
        "attention": attention,
        "attention_kernel": job.workload.attention_kernel if attention == "flash" else None,
        "sequences": _sequences(job, attention, assumed),
        "loss": _loss(job, assumed),
        "kernels": job.workload.kernels,
        "deepspeed_version": job.workload.deepspeed_version,
        "zero_init": _builds_under_zero_init(job, stage),
        "loaded_on": job.workload.loaded_on or workload.HOST,
    }


def _leaves_precision(job: Job, settings: Settings) -> bool:
    said = [(job.document.get(k), settings[k]) for k in ("fp16.enabled", "bf16.enabled")]
    return any(own == "auto" for own, _ in said) and all(on is not True for _, on in said)


def _loss(job: Job, assumed: Assumptions) -> str:
    """As stated; Liger's where its kernels are and it has one for the model."""
    if job.workload.loss is not None:
        return job.workload.loss
    patches = job.workload.kernels == LIGER_KERNELS and job.model.arch.family in workload.LIGER
    if not patches:
        return workload.TRANSFORMERS
    assumed.settings["loss"] = Setting(workload.FUSED_LINEAR, "follows kernels")
    return workload.FUSED_LINEAR


def _sequences(job: Job, attention: str, assumed: Assumptions) -> str:
    """Worth a word only where it decides which kernel runs."""
    if job.workload.sequences is not None or attention != "sdpa":
        return job.workload.sequences or "equal"
    found: str = assumed.take(
        "sequences",
        "equal",
        "whether sequences are padded was not stated: equal lengths assumed; padded or packed ones "
        "would cost sdpa a mask in every block",
        "give --sequences equal, padded or packed",
    )
    return found


def _builds_under_zero_init(job: Job, stage: int) -> bool:
    """As stated, else as the Trainer does; transformers never does so with quantized weights.

    transformers 5.23 modeling_utils.py:1435, 3815.
    """
    if job.model.quantization is not None:
        return False
    if "_class_name" in job.model.hf_config:  # nor does diffusers, unless a script enters it
        return bool(job.workload.zero_init)
    return stage == 3 if job.workload.zero_init is None else job.workload.zero_init


def _precision(
    job: Job, settings: Settings, row: Optimizer, params: Mapping[str, Any]
) -> dict[str, Any]:
    model = DType.FP32
    if settings["fp16.enabled"] is True:
        model = DType.FP16
    elif settings["bf16.enabled"] is True:
        model = DType.BF16
    grad_accum = dtype_of(settings["data_types.grad_accum_dtype"]) or model
    wrapper = wrapper_of(
        settings[_ZERO + "stage"],
        model,
        grad_accum,
        offloads_to_cpu=settings[_ZERO + "offload_optimizer.device"] == "cpu",
        is_fused=row.is_fused_adam,
    )
    master = _master_dtype(settings, wrapper)
    low_moments = (
        settings["bf16.bf16_optimizer_states"] is True
        or params.get("fp32_optimizer_states") is False
    )
    autocast = bool(settings["torch_autocast.enabled"])  # unchecked: "no" counts as true
    return {
        "stage": settings[_ZERO + "stage"],
        "wrapper": wrapper,
        "model_dtype": model,
        "grad_accum_dtype": grad_accum,
        "comm_dtype": dtype_of(settings["communication_data_type"]) or model,
        "master_dtype": master,
        "moments_dtype": master if low_moments else DType.FP32,
        "autocast_dtype": (dtype_of(settings["torch_autocast.dtype"]) or DType.BF16)
        if autocast
        else None,
        # Without fp16 or bf16 the engine casts nothing: what was built is what is trained.
        "built_dtype": DType.FP32 if model is DType.FP32 else hf_dtype(job.model) or DType.FP32,
    }


def _master_dtype(settings: Settings, wrapper: Wrapper) -> DType:
    """base_optimizer.py:523-530, whatever the model's precision; other wrappers do not ask."""
    if wrapper in (Wrapper.ZERO12, Wrapper.ZERO3):
        if settings["fp16.fp16_master_weights_and_grads"] is True:
            return DType.FP16
        if settings["bf16.bf16_master_weights_and_grads"] is True:
            return DType.BF16
    return DType.FP32


def _offload(settings: Settings, row: Optimizer) -> dict[str, Any]:
    optimizer, param = _ZERO + "offload_optimizer.", _ZERO + "offload_param."
    stage = settings[_ZERO + "stage"]
    optimizer_device = _DEVICES.get(settings[optimizer + "device"], Device.GPU)
    if stage in (1, 2) and optimizer_device is Device.NVME:
        optimizer_device = Device.HOST  # stage_1_and_2.py:220: any device means cpu
    if stage == 0:
        optimizer_device = Device.GPU  # nothing moves: only the optimizer's class changes
    param_device = _DEVICES.get(settings[param + "device"], Device.GPU)
    return {
        "optimizer_device": optimizer_device,
        "optimizer_pinned": settings[optimizer + "pin_memory"] is True,
        "optimizer_ratio": settings[optimizer + "ratio"],
        "optimizer_buffer_count": settings[optimizer + "buffer_count"],
        "optimizer_pipelines": [settings[optimizer + way] for way in _PIPELINES].count(True),
        "param_device": param_device if stage == 3 else Device.GPU,
        "param_pinned": settings[param + "pin_memory"] is True,
        "param_buffer_count": settings[param + "buffer_count"],
        "param_buffer_size": settings[param + "buffer_size"],
        "param_max_in_cpu": settings[param + "max_in_cpu"],
        "aio_block_size": int(_number(settings, "aio.block_size", 2**20)),
        "aio_parallelism": int(_number(settings, "aio.intra_op_parallelism", 1)),
    }


def _zero(settings: Settings) -> dict[str, Any]:
    sequential = settings[_ZERO + "stage3_allgather_sequential"] is True
    prefetch = settings[_ZERO + "stage3_prefetch_bucket_size"]
    leaves = settings.under(_ZERO + "leaf_module")
    return {
        "reduce_bucket_size": settings[_ZERO + "reduce_bucket_size"],
        "overlap_comm": settings[_ZERO + "overlap_comm"] is True,
        "contiguous_gradients": settings[_ZERO + "contiguous_gradients"],
        "reduce_scatter": settings[_ZERO + "reduce_scatter"],
        "keeps_momentum": settings[_ZERO + "save_muon_momentum_buffer_in_memory"],
        "prescale_gradients": settings["prescale_gradients"],
        "gradient_predivide_factor": settings["gradient_predivide_factor"],
        "multi_rank_allreduce": settings[_ZERO + "use_multi_rank_bucket_allreduce"],
        "align_tensors": settings[_ZERO + "parameter_alignment"],
        "round_robin": settings[_ZERO + "round_robin_gradients"],
        "immediate_grad_update": settings["bf16.immediate_grad_update"],
        "sub_group_size": settings[_ZERO + "sub_group_size"],
        "prefetch_bucket_size": 1 if sequential else prefetch,  # engine.py:2742-2744
        "persistence_threshold": settings[_ZERO + "stage3_param_persistence_threshold"],
        "model_persistence_threshold": settings[_ZERO + "stage3_model_persistence_threshold"],
        "max_live_parameters": settings[_ZERO + "stage3_max_live_parameters"],
        "max_reuse_distance": settings[_ZERO + "stage3_max_reuse_distance"],
        "saves_linear_inputs": settings[_ZERO + "stage"] == 3
        and settings[_ZERO + "memory_efficient_linear"] is not False,
        "hpz_partition_size": settings[_ZERO + "zero_hpz_partition_size"],
        "gathers_on_save": settings[_ZERO + "stage3_gather_16bit_weights_on_model_save"] is True,
        "leaf_modules": LeafModules(*(tuple(leaves[kind]) for kind in LeafModules._fields)),
    }


def _activation_checkpointing(settings: Settings) -> dict[str, Any]:
    """DeepSpeed's section, which acts only in models that call it.

    Its parser checks nothing: whatever Python takes for true counts, the string "no" too.
    """
    section = "activation_checkpointing."
    contiguous = bool(settings[section + "contiguous_memory_optimization"])
    return {
        "cpu_checkpointing": bool(settings[section + "cpu_checkpointing"]),
        "partition_activations": bool(settings[section + "partition_activations"]),
        "contiguous_checkpoints": int(_number(settings, section + "number_checkpoints", 0))
        if contiguous
        else 0,
    }


def _groups(groups: tuple[selection.Group, ...]) -> dict[str, Any]:
    return {
        "group_names": tuple(g.name for g in groups),
        "group_indices": tuple(g.indices for g in groups),
        "group_optimizers": tuple(g.optimizer for g in groups),
    }


def _optimizer_params(job: Job) -> Mapping[str, Any]:
    params = job.document.get("optimizer.params")
    return params if isinstance(params, Mapping) else {}


def _unknown_optimizer(name: Any, job: Job) -> Finding:
    """Names the config's optimizer, or where it has none the Trainer's."""
    name = name or job.workload.optim
    return Finding(
        code="optimizer-not-modelled",
        severity=Severity.WARNING,
        key="optimizer.type" if job.document.has("optimizer.type") else "optim",
        line=job.document.line("optimizer.type"),
        message=f"what optimizer {name!r} keeps per parameter is not known here, so nothing is "
        "predicted",
        remedy="use one of the optimizers DeepSpeed names, or ask the simulated dry run",
    )


def dtype_of(value: Any) -> DType | None:
    """The dtype that a word such as ``bf16`` or ``torch.float16`` names; None for others."""
    return _DTYPES.get(value.lower().removeprefix("torch.")) if isinstance(value, str) else None


def hf_dtype(model: ModelSpec) -> DType | None:
    """The dtype a model's config.json names, in which transformers 5 loads it."""
    return dtype_of(model.hf_config.get("dtype") or model.hf_config.get("torch_dtype"))


def _is_positive(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and isfinite(value) and value >= 1


def _number(settings: Settings, key: str, fallback: float) -> float:
    """A number of a section DeepSpeed does not check; garbage there already has its finding."""
    value = settings[key]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and isfinite(value) and value >= 0 else fallback
