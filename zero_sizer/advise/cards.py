"""Which GPUs carry a model, and how many of them it takes, by what is trained and where it lies."""

from collections.abc import Iterator
from dataclasses import replace

from zero_sizer.advise.alternatives import alternatives
from zero_sizer.advise.config import chosen_config, default_config, usual_precision
from zero_sizer.advise.ladder import ladder_of
from zero_sizer.advise.strategy import strategies
from zero_sizer.config import document
from zero_sizer.hardware.cluster import Gpu
from zero_sizer.hardware.device import Device
from zero_sizer.hardware.workspaces import blas_bytes
from zero_sizer.job.fields import Flags
from zero_sizer.job.read import Job, without_config
from zero_sizer.ledger.capacity import Fit
from zero_sizer.models.attention import FLASH, LACKS, SDPA
from zero_sizer.parallel import ParallelDims, laid_out
from zero_sizer.sizing import size
from zero_sizer.util.records import dataclass

GPUS_A_NODE = 8
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_THIRD, _ON_HOST = "ZeRO-3", "ZeRO-3, all on host"
WAYS = (("", _THIRD), ("", _ON_HOST), ("LoRA", _THIRD), ("QLoRA", _THIRD))
"""What is trained ("" is everything), and the strategy."""


@dataclass(frozen=True, kw_only=True)
class Enough:
    """The fewest GPUs of one kind that carry a model in one way.

    Attributes:
        gpus: how many, of ``COUNTS``.
        gpu_bytes: peak of each.
        host_bytes: peak of a node's host memory.
    """

    gpus: int
    gpu_bytes: int
    host_bytes: int


def name_of(way: tuple[str, str]) -> str:
    """A way in words."""
    trained, strategy = way
    return ", ".join(filter(None, (trained, strategy)))


def carriers(
    gpus: tuple[Gpu, ...], model: str, seq_len: int | None = None
) -> Iterator[tuple[Gpu, dict[str, Enough | None]]]:
    """Every GPU with the fewest that fit in each of ``WAYS``; None where ``COUNTS`` end before.

    One sample a GPU, checkpointed, with the most frugal settings; host memory is not bounded.
    """
    known: dict[tuple[object, ...], dict[str, Enough | None]] = {}
    for gpu in gpus:
        key = (gpu.visible_bytes, gpu.context_bytes, blas_bytes(gpu), gpu.compute_capability)
        if key not in known:
            known[key] = _on(gpu, model, seq_len)
        yield gpu, known[key]


def _on(gpu: Gpu, model: str, seq_len: int | None) -> dict[str, Enough | None]:
    precision = usual_precision(gpu.name)
    flags = Flags(model=model, gpu=gpu.name, gpus_per_node=1, seq_len=seq_len, checkpointing=True)
    whole = without_config(default_config(precision), flags)
    lacks = LACKS.get(whole.model.arch.family, ())
    has_flash = precision == "bf16" and FLASH not in lacks
    attention = FLASH if has_flash else SDPA
    whole = replace(whole, workload=replace(whole.workload, attention=attention))
    jobs = {"": whole, **{other.name: other.job for other in alternatives(whole)}}
    return {name_of(way): _fewest(jobs[way[0]], way[1]) if way[0] in jobs else None for way in WAYS}


def _fewest(job: Job, strategy: str) -> Enough | None:
    for count in COUNTS:
        found = _sized(job, strategy, laid_out(count, GPUS_A_NODE))
        if found is not None:
            return replace(found, gpus=count)
    return None


def _sized(job: Job, name: str, ranks: ParallelDims) -> Enough | None:
    """The job there; None where its GPUs may be too small, or DeepSpeed refuses it."""
    job = replace(job, cluster=job.cluster.of(ranks))
    strategy = next(s for s in strategies(job) if s.name == name)
    largest = max((tensor.numel for tensor in job.model.parameters), default=0)
    ladder = ladder_of(strategy, largest)
    setting = ladder.both(ladder.host[-1], ladder.corners[-1])
    values = chosen_config(job.document.values, strategy, setting, micro_batch=1, grad_accum=1)
    sizing = size(replace(job, document=document.from_mapping(values)))
    need, found = sizing.needs[Device.GPU], sizing.capacities[Device.GPU]
    if not sizing.is_valid or need.fit(found) is not Fit.YES:
        return None
    peaks = sizing.peaks
    return Enough(
        gpus=ranks.world_size,
        gpu_bytes=peaks[Device.GPU].num_bytes,
        host_bytes=peaks[Device.HOST].num_bytes,
    )
