"""Rules about inference: what DeepSpeed refuses there, and what the prediction leaves out."""

from collections.abc import Iterator

from zero_sizer.checks import tensor_inference
from zero_sizer.checks.measured import of_another_gpu
from zero_sizer.findings import INPUTS_NOT_MODELLED, Direction, Finding, Severity
from zero_sizer.job.inference import NOT_READ
from zero_sizer.job.read import Job
from zero_sizer.models import kv_cache
from zero_sizer.models.feeds import feed_of
from zero_sizer.models.inputs import besides_tokens
from zero_sizer.models.positions import longest_sequence
from zero_sizer.plan.plan import Plan

_ZERO = "zero_optimization"


def findings(job: Job, plan: Plan) -> list[Finding]:
    """Everything about a job of inference, in no order."""
    return [
        *_config(job, plan),
        *tensor_inference.findings(job, plan),
        *_workload(job, plan),
        *_inputs(job),
        *_model(plan),
        *of_another_gpu(job.cluster),
    ]


def _config(job: Job, plan: Plan) -> Iterator[Finding]:
    document = job.document

    def finding(code: str, key: str, message: str, remedy: str, severity: Severity,
                direction: Direction | None = None) -> Finding:  # fmt: skip
        return Finding(
            code=code, severity=severity, key=key, line=document.line(key), message=message,
            remedy=remedy, direction=direction,
        )  # fmt: skip

    if document.get("optimizer") is not None:
        yield finding(
            "optimizer-in-inference",
            "optimizer",
            "deepspeed.initialize builds the optimizer, and inference has none: its states and "
            "gradients are not counted",
            "take the section out",
            Severity.WARNING,
            Direction.COST,
        )
    elif plan.stage in (1, 2):
        yield finding(
            "stage-without-optimizer",
            f"{_ZERO}.stage",
            f"AssertionError: zero stage {plan.stage} requires an optimizer",
            "take stage 3, or no config: stages 1 and 2 partition what inference lacks",
            Severity.ERROR,
        )
    if plan.dp_world_size > 1 and plan.stage == 0 and plan.tp_size == 1:
        yield finding(
            "whole-model-on-each-gpu",
            "",
            f"each of the {plan.dp_world_size} GPUs holds the whole model and runs its own "
            "sequences: nothing splits it",
            "give a DeepSpeed config of stage 3 (ZeRO-Inference) or --tensor-parallel to share it",
            Severity.NOTE,
        )
    if document.get("hybrid_engine.enabled") is True:
        yield finding(
            "hybrid-engine-not-modelled",
            "hybrid_engine.enabled",
            "the hybrid engine keeps a workspace of max_out_tokens for every layer, and may gather "
            "all layers at once",
            "leave it out: the families it knows are those of 2022",
            Severity.WARNING,
            Direction.COST,
        )
    for key in ("weight_quantization.post_init_quant", "quant"):
        if not document.get(key):
            continue
        yield finding(
            "weight-quantization-not-modelled",
            key,
            "what a script quantizes once the model is there is not counted: weights are counted "
            f"in {plan.model_dtype.value}",
            "use --quantization, or read the answer as the most that it takes",
            Severity.WARNING,
            Direction.EITHER,
        )


def _workload(job: Job, plan: Plan) -> Iterator[Finding]:
    for name in NOT_READ:
        if getattr(job.workload, name, None) is not None:
            yield Finding(
                code="idle-in-inference",
                severity=Severity.WARNING,
                key=f"--{name.replace('_', '-')}",
                message="says nothing about inference",
                remedy="leave it out",
            )
    longest, tokens = longest_sequence(job.model), plan.seq_len + plan.new_tokens
    if longest is not None and tokens > longest:
        yield Finding(
            code="sequence-too-long",
            severity=Severity.ERROR,
            key="--new-tokens" if plan.seq_len <= longest else "--prompt",
            message=f"IndexError: {tokens:,} tokens are more than the {longest:,} positions of the "
            "model's table",
            remedy=f"at most {longest:,} in all",
        )
    if plan.sequences == "packed" or (plan.sequences == "padded" and plan.attention == "sdpa"):
        yield Finding(
            code="padded-inference-not-modelled",
            severity=Severity.NOTE,
            key="--sequences",
            message="a mask of every query and key, which sdpa is handed then, is not counted",
            remedy="prompts of one length need none",
            direction=Direction.COST,
            num_bytes=4 * plan.micro_batch * tokens * tokens,
        )
    yield Finding(
        code="servers-reserve",
        severity=Severity.NOTE,
        message="vLLM, SGLang and TGI reserve a fraction of the GPU for weights and cache together "
        "(vLLM's gpu_memory_utilization, 0.9), whatever a request needs: what is counted here is "
        "transformers' own generate",
    )


def _inputs(job: Job) -> Iterator[Finding]:
    """Prefill and decode are counted of tokens: towers and encoders beside them are not."""
    fed, images = besides_tokens(job.model), job.workload.images
    feed = feed_of(job.model, job.workload.said)
    may_be_text = feed is not None and feed.has_tokens and "images" in feed.free
    if not fed or (may_be_text and images is not None and images.count == 0):
        return
    yield Finding(
        code=INPUTS_NOT_MODELLED,
        severity=Severity.WARNING,
        key="--task",
        message=f"{job.model.name} is fed {fed}, and inference counts tokens alone: what it "
        "computes and keeps of them is not counted",
        remedy="`zero-sizer dryrun --how simulated -- generate.py` runs a script with its own "
        "inputs" + ("; give --images 0 where prompts are text alone" if may_be_text else ""),
        direction=Direction.COST,
    )


def _model(plan: Plan) -> Iterator[Finding]:
    model = plan.model
    if not kv_cache.layers_of(model) and plan.new_tokens:
        yield Finding(
            code="cache-not-modelled",
            severity=Severity.WARNING,
            key="--model",
            message="the cache of such a model is not known here: decoders alone are",
            remedy="give --new-tokens 0 for one forward",
            direction=Direction.COST,
        )
    if model.adapter is not None:
        yield Finding(
            code="adapter-in-inference-not-modelled",
            severity=Severity.WARNING,
            key="--adapter",
            message="activations are those of the base: what an adapter that is not merged makes "
            "beside them is not counted",
            remedy="merge it (peft's merge_and_unload) and leave --adapter out",
            direction=Direction.COST,
        )
