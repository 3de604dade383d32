"""Other jobs for where nothing fits: what the training code can change, then adapters."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from zero_sizer.config import workload
from zero_sizer.config.workload import Checkpointing
from zero_sizer.errors import InputError, UnsupportedError
from zero_sizer.job.read import Job
from zero_sizer.models.changes import lora, lora_config, quantization
from zero_sizer.util.records import dataclass

_LORA, _NF4 = "r=16,targets=all-linear", "nf4,double"


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """A job like the one that was asked for.

    Attributes:
        name: what to call it.
        flags: the options that say it.
        job: the job.
        trains_the_same: whether it trains what was asked for, to the same weights.
    """

    name: str
    flags: tuple[str, ...]
    job: Job
    trains_the_same: bool


def alternatives(job: Job) -> Iterator[Alternative]:
    """Each that the model allows, the least different first."""
    for name, flags, change, same in (
        ("Liger's fused linear loss", ("--loss", workload.FUSED_LINEAR), _fused_loss, True),
        (
            "checkpointed inputs in host memory",
            ("--checkpointing-how", "offload"),
            _offloaded_inputs,
            True,
        ),
        ("LoRA", ("--adapter", _LORA), _lora, False),
        ("QLoRA", ("--adapter", _LORA, "--quantization", _NF4), _qlora, False),
    ):
        other = _changed(job, change)
        if other is not None:
            yield Alternative(name=name, flags=flags, job=other, trains_the_same=same)


def _changed(job: Job, change: Callable[[Job], Job | None]) -> Job | None:
    try:
        return change(job)
    except (InputError, UnsupportedError):  # not of this model
        return None


def _fused_loss(job: Job) -> Job | None:
    is_usual = job.workload.loss in (None, workload.TRANSFORMERS) and job.workload.kernels is None
    if not is_usual or job.model.arch.family not in workload.LIGER:
        return None
    return replace(job, workload=replace(job.workload, loss=workload.FUSED_LINEAR))


def _offloaded_inputs(job: Job) -> Job | None:
    workload = job.workload
    is_plain = workload.checkpointing is not False and not workload.checkpointing_how.about
    if not is_plain or not job.cluster.host_memory:
        return None
    how = Checkpointing(offload=True)
    return replace(job, workload=replace(workload, checkpointing=True, checkpointing_how=how))


def _lora(job: Job) -> Job | None:
    if job.model.adapter is not None:
        return None
    found = lora_config.read(_LORA, "--adapter")
    return replace(job, model=lora.with_adapter(job.model, found))


def _qlora(job: Job) -> Job | None:
    if job.model.adapter is not None or job.model.quantization is not None:
        return None
    found = quantization.read(_NF4, "--quantization")
    return _lora(replace(job, model=quantization.with_quantization(job.model, found)))
