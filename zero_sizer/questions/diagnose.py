"""Why did this job run out of memory, and what to change?"""

from collections.abc import Iterator
from dataclasses import replace

from zero_sizer.advise.fixes import Fix, fixes
from zero_sizer.hardware.device import Device
from zero_sizer.job.fields import Flags
from zero_sizer.job.read import Config
from zero_sizer.ledger.entry import Allocation
from zero_sizer.ledger.verdict import Verdict, is_assumption
from zero_sizer.logs import log
from zero_sizer.logs.log import Log
from zero_sizer.logs.symptom import Kind, Symptom
from zero_sizer.questions.jobs import job_of
from zero_sizer.sizing import Sizing, size
from zero_sizer.units import MIB, format_gib
from zero_sizer.util.records import dataclass

_CLOSE = 0.02  # of a request, by which an allocation of that size may differ
_FAR = 0.1  # of the figure predicted, from which the job is not the one that was stated
_OTHERS = 256 * MIB  # more than a display takes of a GPU
_LOWER = 0.9  # of what a job that fits takes: what its changes must bring it below
_EXPANDABLE = "PYTORCH_ALLOC_CONF=expandable_segments:True (PYTORCH_CUDA_ALLOC_CONF before 2.9)"


@dataclass(frozen=True, kw_only=True)
class Cause:
    """One thing that may have made the job fail, and what to do about it.

    Attributes:
        code: stable kebab-case name.
        message: what it is, with figures.
        remedy: what to change.
    """

    code: str
    message: str
    remedy: str = ""


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """Failure that a log tells of, beside what is predicted.

    Attributes:
        log: as read.
        sizing: of the job; None where no config was given.
        predicted: bytes predicted for the device and phase of the failure, everything outside of
            PyTorch left out; None without a prediction.
        asked_for: allocations of the size that was asked for.
        causes: the most likely first.
        fixes: changes, each with its new peak, the least disruptive first.
    """

    log: Log
    sizing: Sizing | None = None
    predicted: int | None = None
    asked_for: tuple[Allocation, ...] = ()
    causes: tuple[Cause, ...] = ()
    fixes: tuple[Fix, ...] = ()


def diagnose(path: str, config: Config | None, flags: Flags) -> Diagnosis:
    """Reads a log, and lays it beside the prediction where a job is given.

    Args:
        path: of the log; ``-`` is standard input.
        config: of the job that failed; None to read the log alone.
        flags: what was stated beside it.

    Raises:
        ZeroSizerError: log or job cannot be read.
    """
    found = log.read(path)
    is_stated = config is not None or flags.model is not None
    sizing = size(job_of(config, flags)) if is_stated else None
    return of_log(found, sizing)


def of_log(found: Log, sizing: Sizing | None) -> Diagnosis:
    """Diagnosis of a log, beside a sizing."""
    symptom = found.cause
    if symptom is None:
        return Diagnosis(log=found, sizing=sizing)
    predicted = None if sizing is None or sizing.plan is None else _predicted(sizing, symptom)
    return Diagnosis(
        log=found,
        sizing=sizing,
        predicted=predicted,
        asked_for=tuple(_asked_for(sizing, symptom)) if sizing is not None else (),
        causes=tuple(_causes(symptom, sizing, predicted)),
        fixes=tuple(_fixes(sizing, symptom.device)) if sizing is not None else (),
    )


def _predicted(sizing: Sizing, symptom: Symptom) -> int:
    """Bytes of the phase, on the rank that holds most in it."""
    moments = sizing.moments[symptom.device]
    found = [n for moment, n in moments.items() if symptom.phase in (None, moment.phase)]
    if symptom.device is Device.GPU:
        found += [of.num_bytes for phase, of in sizing.higher.items() if phase is symptom.phase]
    return max(found, default=0)


def _asked_for(sizing: Sizing, symptom: Symptom) -> Iterator[Allocation]:
    """Allocations of the size that could not be had: a request names what it was for."""
    request = symptom.requested
    if request is None or request.high < MIB:
        return
    for allocation in sizing.allocations:
        is_there = allocation.device is symptom.device
        slack = int(_CLOSE * request.expected) if request.low == request.high else 0
        if is_there and request.low - slack <= allocation.num_bytes <= request.high + slack:
            yield allocation


def _causes(symptom: Symptom, sizing: Sizing | None, predicted: int | None) -> Iterator[Cause]:
    if symptom.others >= _OTHERS:
        yield Cause(
            code="other-processes",
            message=f"other processes have {format_gib(symptom.others)} of the GPU",
            remedy="end them (nvidia-smi shows them), or choose other GPUs",
        )
    yield from _of_kind(symptom)
    if sizing is None or predicted is None:
        return
    device, short = symptom.device, sizing.shortfall(symptom.device)
    if short:
        yield Cause(
            code="predicted",
            message=f"the job is predicted to be {format_gib(short)} short of it",
            remedy="see the changes below",
        )
    elif sizing.capacities[device].num_bytes is None:
        yield Cause(
            code="capacity-not-stated",
            message=f"{format_gib(predicted)} are predicted, and how much there is was not stated",
            remedy={
                Device.GPU: "give --gpu",
                Device.HOST: "give --host-memory",
                Device.NVME: "give --nvme",
            }[device],
        )
    yield from _about_job(symptom, sizing, predicted)


def _of_kind(symptom: Symptom) -> Iterator[Cause]:
    match symptom.kind:
        case Kind.GPU if symptom.is_fragmented:
            yield Cause(
                code="fragmentation",
                message=f"PyTorch held {format_gib(symptom.idle or 0)} in pieces that were too "
                f"small for the {format_gib((symptom.requested or (0, 0))[1])} asked for",
                remedy=_EXPANDABLE,
            )
        case Kind.GPU_UNKNOWN | Kind.NCCL:
            yield Cause(
                code="outside-of-pytorch",
                message="the driver refused memory outside of PyTorch's allocator: the CUDA "
                "context, NCCL's buffers and cuBLAS's workspaces come beside what it reserves",
                remedy="leave 1 to 3 GiB free: a smaller micro batch, or "
                "torch.cuda.set_per_process_memory_fraction(0.95)",
            )
        case Kind.KILLED:
            yield Cause(
                code="killed",
                message="signal 9 came from outside: mostly the kernel, as the host's memory "
                "ran out, else a person, a scheduler or a time limit",
                remedy="dmesg -T (or journalctl -k) shows `Out of memory: Killed process` if it "
                "was memory",
            )
        case Kind.PINNING:
            yield Cause(
                code="page-locked-memory",
                message="the host gave no page-locked memory: pinned buffers are rounded up to "
                "powers of two and cannot be swapped; containers and `ulimit -l` limit them",
                remedy="pin_memory: false in offload_optimizer and offload_param, or raise the "
                "limit",
            )
        case Kind.SHARED:
            yield Cause(
                code="shared-memory",
                message="/dev/shm is full: workers of the data loader hand batches over in it",
                remedy="docker run --ipc=host (or --shm-size), fewer --num-workers",
            )
        case Kind.DISK:
            yield Cause(
                code="disk-full",
                message="a file system is full: NVMe offload swaps there, checkpoints are "
                "written there",
                remedy="df -h on nvme_path and on the folder of the checkpoints",
            )
        case _:
            return


def _about_job(symptom: Symptom, sizing: Sizing, predicted: int) -> Iterator[Cause]:
    """How the job that ran may differ from the one that was stated."""
    measured = symptom.allocated
    wanted = None if measured is None else measured + (symptom.requested or (0, 0))[1]
    if wanted is not None and wanted > predicted * (1 + _FAR):
        yield Cause(
            code="more-than-predicted",
            message=f"{format_gib(wanted)} were wanted where {format_gib(predicted)} are "
            "predicted: what ran is not what was stated here",
            remedy="look at longer or padded sequences, evaluation, a second model, an older "
            "version",
        )
    assumed = [f for f in sizing.findings if f.code.startswith("assumed-")]
    if assumed and (sizing.verdict is not Verdict.DOES_NOT_FIT or any(map(is_assumption, assumed))):
        yield Cause(
            code="assumptions",
            message="not stated, and so assumed: " + "; ".join(f.message for f in assumed),
            remedy="state them",
        )


def _fixes(sizing: Sizing, device: Device) -> list[Fix]:
    """Changes with their new peaks, also where the prediction says that the job fits."""
    found = fixes(sizing)
    if found or device is Device.NVME or sizing.plan is None:
        return found
    most, cluster = max(int(sizing.needs[device].low * _LOWER), 1), sizing.job.cluster
    if device is Device.GPU:
        cluster = replace(cluster, gpu_memory=most)
    else:
        cluster = replace(cluster, host_memory=most)
    return fixes(size(replace(sizing.job, cluster=cluster)))
