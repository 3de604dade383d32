"""Rules about AutoTP of ``deepspeed.init_inference``: what it takes, and what fails there.

deepspeed 0.19.8 with transformers 5.23, on real ranks: BLOOM's, Phi-3's and multi-query Falcon's
forward fail once their layers are cut; GPT-2 is refused before.
"""

from collections.abc import Iterator

from zero_sizer.findings import Direction, Finding, Severity
from zero_sizer.job.read import Job
from zero_sizer.models.changes import tensor_slices
from zero_sizer.models.spec import ModelSpec
from zero_sizer.plan.plan import Plan
from zero_sizer.units import format_gib, num_bytes

_FLAG, _KEY = "--tensor-parallel", "tensor_parallel"


def findings(job: Job, plan: Plan) -> Iterator[Finding]:
    """Everything about the ranks that share each layer."""
    stated = job.workload.tensor_parallel
    key = _KEY if job.document.has(_KEY) else _FLAG
    line = job.document.line(_KEY)
    if stated is not None and job.document.values and stated != plan.tp_size:
        yield Finding(
            code="tensor-parallel-contradicts-config",
            severity=Severity.ERROR,
            key=_FLAG,
            message=f"asks init_inference for {stated} ranks, and the config is "
            + (f"for {plan.tp_size}" if job.document.has(_KEY) else "one of deepspeed.initialize"),
            remedy="leave one of the two out",
        )
    if plan.tp_size == 1:
        return
    if plan.tp_size != job.cluster.world_size:
        has_more = plan.tp_size < job.cluster.world_size
        yield Finding(
            code="tensor-parallel-ranks",
            severity=Severity.ERROR,
            key=key,
            line=line,
            message=f"init_inference makes one group, of ranks 0 to {plan.tp_size - 1}, and the "
            f"job has {job.cluster.world_size}: "
            + ("the others fail" if has_more else "there is no such group"),
            remedy=f"give --gpus-per-node {plan.tp_size}, or as many ranks as there are",
        )
    error = tensor_slices.refusal(job.model) or _fails(job.model)
    if error:
        yield Finding(
            code="auto-tp-fails",
            severity=Severity.ERROR,
            key=key,
            line=line,
            message=error,
            remedy="take ZeRO-Inference: a config of stage 3",
        )
    why = tensor_slices.unknown(job.model)
    if why and not error:
        yield Finding(
            code="tensor-parallel-inference-not-modelled",
            severity=Severity.WARNING,
            key=key,
            line=line,
            message=f"which part {why} a rank holds is not known: it is counted as holding all of "
            "them, its cache and its activations whole",
            remedy="take the answer for the most that a rank needs",
            direction=Direction.SAVE,
        )
    elif not error:
        yield from _of_slice(plan, key, line)


def _of_slice(plan: Plan, key: str, line: int) -> Iterator[Finding]:
    model = plan.model
    whole = model.whole or model
    yield Finding(
        code="whole-model-before-slicing",
        severity=Severity.NOTE,
        key=key,
        line=line,
        message="every process loads the whole model on its host first; a script that loads it on "
        "its GPU (device=local_rank, device_map) holds "
        f"{format_gib(num_bytes(whole.num_params, plan.model_dtype))} there before it is sliced",
        remedy="load it on the CPU, or on meta with a checkpoint config",
    )


def _fails(model: ModelSpec) -> str:
    family, fields = model.arch.family, model.hf_config
    if family == "bloom":
        return "RuntimeError: expanded size: its attention adds alibi of all heads to those cut"
    if family == "phi3":
        return "RuntimeError: size of tensor: its attention splits queries, keys and values whole"
    if (
        family == "falcon"
        and fields.get("multi_query")
        and not fields.get("new_decoder_architecture")
    ):
        return "RuntimeError: shape is invalid: its one key and value head is cut as well"
    return ""
