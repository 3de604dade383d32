"""From a job of inference to its Plan."""

from collections.abc import Mapping
from dataclasses import replace

from zero_sizer.config import inference as configs
from zero_sizer.config.document import Document
from zero_sizer.config.settings import Setting, Settings
from zero_sizer.config.workload import DYNAMIC, INFERENCE
from zero_sizer.findings import Direction, Finding, Severity
from zero_sizer.job import summary
from zero_sizer.job.read import Job
from zero_sizer.models.changes import group_codes, tensor_slices
from zero_sizer.models.positions import longest_sequence
from zero_sizer.models.spec import ModelSpec
from zero_sizer.plan.assumptions import Assumptions
from zero_sizer.plan.plan import Plan
from zero_sizer.plan.resolve import Planned, dtype_of, hf_dtype, plan_of, settings_of
from zero_sizer.units import DType

_PROMPT, _NEW_TOKENS = 1792, 256


def plan_inference(job: Job) -> Planned:
    """The plan of a job whose task is inference; findings of its config included."""
    assumed = Assumptions()
    config, findings = configs.read(job.document)
    if config is None and not job.document.values and job.workload.tensor_parallel:
        config = configs.InferenceConfig(tp_size=job.workload.tensor_parallel)
    document = Document(source=job.document.source, values={}, lines={})
    if config is None:  # a config of deepspeed.initialize, or none
        document = job.document
    batch, prompt, new_tokens = _lengths(job, assumed)
    is_open = document.get("train_micro_batch_size_per_gpu", "auto") == "auto"
    workload = replace(
        job.workload,
        micro_batch=batch if is_open else None,
        seq_len=prompt,
        checkpointing=False,
        sequences=job.workload.sequences or "equal",
        loss=None,
        kernels=None,
    )
    twin = replace(job, document=document, workload=workload)
    settings, found = settings_of(twin)
    planned = plan_of(twin, _without_optimizer(settings))
    if planned.plan is None:  # nobody asks for one here
        raise AssertionError("a plan without an optimizer names none")
    dtype, origin = _precision(job, settings, config)
    rank, model = _slice(job.model, config)
    plan = replace(
        planned.plan,
        task=INFERENCE,
        micro_batch=batch,
        seq_len=prompt,
        new_tokens=new_tokens,
        feed=None,
        cache=job.workload.cache or DYNAMIC,
        tp_size=config.tp_size if config is not None else 1,
        model=model,
        rank=rank,
        model_dtype=dtype,
        built_dtype=dtype,
        autocast_dtype=None,
    )
    plan, of_codes = _coded(plan, document)
    kept = [f for f in planned.findings if f.code not in _OF_TRAINING]
    own = {"precision": Setting(dtype.value, origin), **assumed.settings}
    return Planned(
        plan=plan,
        settings={**planned.settings, **summary.of(job), **own},
        findings=(
            *(*findings, *(found if document.values else ()), *kept),
            *(*of_codes, *assumed.findings),
        ),
    )


def _slice(model: ModelSpec, config: configs.InferenceConfig | None) -> tuple[int, ModelSpec]:
    """The rank of AutoTP that holds most, and the model as it lies there."""
    ranks = config.tp_size if config is not None else 1
    if config is None or ranks == 1 or tensor_slices.refusal(model) or tensor_slices.unknown(model):
        return 0, model
    return tensor_slices.highest(model, ranks, config.grain)


def _coded(plan: Plan, document: Document) -> tuple[Plan, list[Finding]]:
    """The plan with weights in DeepSpeed's own codes, where the config asks for them."""
    section = document.get(group_codes.KEY)
    if not isinstance(section, Mapping) or not section:
        return plan, []
    if plan.stage != 3 or not plan.zero_init:
        return plan, [
            Finding(
                code="idle-key",
                severity=Severity.WARNING,
                key=group_codes.KEY,
                line=document.line(group_codes.KEY),
                message="does nothing: weights are quantized where zero.Init builds them",
                remedy="take stage 3 and --zero-init, or leave it out",
            )
        ]
    try:
        codes = group_codes.read(section)
        model = group_codes.with_group_codes(plan.model, codes, plan.model_dtype)
    except ValueError as error:
        return plan, [
            Finding(
                code="weights-not-quantizable",
                severity=Severity.ERROR,
                key=group_codes.KEY,
                line=document.line(group_codes.KEY),
                message=str(error),
                remedy="write num_bits 4 or 8, group_size, group_dim 0 or 1, symmetric false",
            )
        ]
    return replace(plan, model=model), []


_OF_TRAINING = (
    *("assumed-precision", "assumed-checkpointing", "assumed-micro-batch"),
    *("assumed-images", "assumed-audio-seconds"),
)


def _without_optimizer(settings: Settings) -> Settings:
    """Settings as of a config that names none: gradients and states are never made."""
    absent = Setting(None, "inference", is_default=True)
    return Settings(by_key={**settings.by_key, "optimizer.type": absent})


def _lengths(job: Job, assumed: Assumptions) -> tuple[int, int, int]:
    stated = job.workload
    limit = longest_sequence(job.model) or job.model.arch.max_positions
    new_tokens = stated.new_tokens
    if new_tokens is None:
        most = _NEW_TOKENS if limit is None else min(_NEW_TOKENS, max(limit // 8, 1))
        new_tokens = assumed.take(
            "new_tokens",
            most,
            f"how many tokens are generated was not stated: {most} assumed",
            "give --new-tokens",
            Direction.EITHER,
        )
    prompt = stated.prompt
    if prompt is None:
        most = _PROMPT if limit is None else max(min(_PROMPT, limit - new_tokens), 1)
        prompt = assumed.take(
            "prompt",
            most,
            f"no length of the prompt was given: {most} tokens assumed",
            "give --prompt",
            Direction.EITHER,
        )
    batch = stated.batch_size
    if batch is None:
        batch = assumed.take(
            "batch_size",
            1,
            "how many sequences a GPU runs at once was not stated: 1 assumed",
            "give --batch-size",
        )
    return batch, prompt, new_tokens


def _precision(
    job: Job, settings: Settings, config: configs.InferenceConfig | None
) -> tuple[DType, str]:
    """As stated, as the config has it, or as the checkpoint is (transformers' ``dtype="auto"``)."""
    stated = dtype_of(job.workload.precision)
    if config is not None:
        asked = dtype_of(config.dtype)
        if config.says_dtype and asked is not None:
            return asked, job.document.where("dtype")
        return (stated, _origin(job)) if stated else (DType.FP16, "init_inference's default")
    for name, dtype in (("fp16", DType.FP16), ("bf16", DType.BF16)):
        if settings[f"{name}.enabled"] is True:
            return dtype, settings.by_key[f"{name}.enabled"].origin
    if stated is not None:
        return stated, _origin(job)
    own = hf_dtype(job.model)
    if own is not None:
        return own, "the model's config.json"
    return DType.FP32, "torch's default"


def _origin(job: Job) -> str:
    return job.workload.origins.get("precision", "--precision")
