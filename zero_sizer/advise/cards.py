"""Which GPUs carry a model, and how many of them it takes, by what is trained and where it lies."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field, replace

from zero_sizer.advise.alternatives import alternatives
from zero_sizer.advise.choose import Options, search_of
from zero_sizer.advise.config import chosen_config, default_config, usual_precision
from zero_sizer.advise.ladder import ladder_of
from zero_sizer.advise.left_open import as_assumed
from zero_sizer.advise.strategy import strategies
from zero_sizer.config import document
from zero_sizer.findings import Finding
from zero_sizer.hardware.cluster import Gpu
from zero_sizer.hardware.device import Device
from zero_sizer.hardware.workspaces import blas_bytes
from zero_sizer.job.fields import Flags
from zero_sizer.job.read import Job, without_config
from zero_sizer.ledger.capacity import Capacity, Fit
from zero_sizer.ledger.verdict import Need
from zero_sizer.models.attention import fastest
from zero_sizer.models.feeds import feed_of
from zero_sizer.models.spec import ModelSpec
from zero_sizer.parallel import ParallelDims, laid_out
from zero_sizer.sizing import Sizing, size
from zero_sizer.units import num_bytes
from zero_sizer.util.records import dataclass

GPUS_A_NODE = 8
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_THIRD, _ON_HOST = "ZeRO-3", "ZeRO-3, all on host"
_PACKED_NAME = "QLoRA"
WAYS = (("", _THIRD), ("", _ON_HOST), ("LoRA", _THIRD), (_PACKED_NAME, _THIRD))
"""What is trained ("" is everything), and the strategy."""
_UNPACKED, _PACKED = f"LoRA, {_THIRD}", f"{_PACKED_NAME}, {_THIRD}"


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


UNKNOWN = Enough(gpus=0, gpu_bytes=0, host_bytes=0)
"""Where no number of GPUs can be told: nothing bounds what the model keeps."""


def name_of(way: tuple[str, str]) -> str:
    """A way in words."""
    trained, strategy = way
    return ", ".join(filter(None, (trained, strategy)))


def carriers(gpus: Sequence[Gpu], said: Flags) -> Iterator[tuple[Gpu, dict[str, Enough | None]]]:
    """Every GPU with the fewest that fit in each of ``WAYS``; None where ``COUNTS`` end before.

    One sample a GPU, checkpointed, with the most frugal settings; host memory is not bounded.

    Args:
        gpus: in the order in which they are answered.
        said: the model, and lengths of a sample (``LENGTHS``).
    """
    kinds: dict[tuple[object, ...], _Kind] = {}
    shared: dict[tuple[str, str], ModelSpec] = {}  # what is computed of one is known of it
    unknown: set[tuple[str, tuple[str, str]]] = set()  # no card bounds what nobody knows
    for gpu in gpus:
        alike = (gpu.context_bytes, blas_bytes(gpu), gpu.compute_capability)
        if alike not in kinds:
            kinds[alike] = _Kind(jobs=_shared(_jobs(gpu, said), usual_precision(gpu.name), shared))
        precision, row = usual_precision(gpu.name), {}
        for way in WAYS:
            is_unknown = (precision, way) in unknown
            found = UNKNOWN if is_unknown else kinds[alike].fewest(way, gpu.visible_bytes)
            row[name_of(way)] = found
            if found == UNKNOWN:
                unknown.add((precision, way))
        yield gpu, row


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """GPUs that differ in their memory alone, which says nothing about what ZeRO-3 needs.

    Attributes:
        jobs: by what is trained.
        sized: what has been sized of them, by way and number of GPUs.
    """

    jobs: Mapping[str, Job]
    sized: dict[tuple[str, str, int], "Sized | None"] = field(default_factory=dict)

    def fewest(self, way: tuple[str, str], memory: int) -> Enough | None:
        """The fewest of ``COUNTS`` that carry a job with so many bytes each."""
        trained, strategy = way
        if trained not in self.jobs:
            return None
        for count in COUNTS:
            key = (trained, strategy, count)
            if key not in self.sized:
                ranks = laid_out(count, GPUS_A_NODE)
                self.sized[key] = _size(self.jobs[trained], strategy, ranks)
            found = self.sized[key]
            if found is not None and found.fits(memory):
                return found.enough
            if found is not None and found.need.high is None:  # as on any other number of them
                return UNKNOWN
        return None


@dataclass(frozen=True, kw_only=True)
class Sized:
    """A job on a number of GPUs.

    Attributes:
        need: of the GPU that needs most.
        capacity: of one GPU, with what lies outside PyTorch.
        enough: what is told where it fits.
    """

    need: Need
    capacity: Capacity
    enough: Enough

    def fits(self, memory: int) -> bool:
        """True if it certainly does on GPUs of so many bytes."""
        return self.need.fit(replace(self.capacity, num_bytes=memory)) is Fit.YES


@dataclass(frozen=True, kw_only=True)
class Cards:
    """Which GPUs carry a model.

    Attributes:
        model: its name as it was asked for.
        brings: one sample, in words.
        rows: see ``carriers``.
        refusal: error for which DeepSpeed runs nothing of the model, whatever the GPU.
        packed_bytes: of the codes of all weights that QLoRA packs; 0 where there is none.
    """

    model: str
    brings: str
    rows: tuple[tuple[Gpu, dict[str, Enough | None]], ...]
    refusal: Finding | None = None
    packed_bytes: int = 0

    @property
    def takes_more_packed(self) -> bool:
        """True if some GPUs carry the model with LoRA where packed weights take more, or fail."""
        return any(_is_fewer(row[_UNPACKED], row[_PACKED]) for _, row in self.rows)

    @property
    def are_unknown(self) -> bool:
        """True if some cells cannot be told: nothing bounds what the model keeps."""
        return any(UNKNOWN in found.values() for _, found in self.rows)


def _is_fewer(one: Enough | None, other: Enough | None) -> bool:
    if one is None or UNKNOWN in (one, other):
        return False
    return other is None or one.gpus < other.gpus


def cards_of(gpus: Sequence[Gpu], said: Flags, tick: Callable[[], None] = lambda: None) -> Cards:
    """The whole answer; ``tick`` is called after each GPU."""
    rows = []
    for row in carriers(gpus, said):
        rows.append(row)
        tick()
    whole = _whole(gpus[0], said)
    is_nowhere = not any(any(found.values()) for _, found in rows)
    return Cards(
        model=str(said.model),
        brings=_brings(whole),
        rows=tuple(rows),
        refusal=search_of(whole, Options()).refusal if is_nowhere else None,
        packed_bytes=_packed_bytes(whole),
    )


def _packed_bytes(job: Job) -> int:
    others = {other.name: other.job.model for other in alternatives(job)}
    if _PACKED_NAME not in others:
        return 0
    return sum(
        num_bytes(tensor.numel, tensor.dtype)
        for tensor in others[_PACKED_NAME].parameters
        if tensor.unpacked is not None and tensor.dtype is not None
    )


def _brings(job: Job) -> str:
    feed = feed_of(job.model, job.workload.said)
    stated = job.workload.origins.get("seq_len")
    tokens = "2048 tokens, or the model's own limit (--seq-len)"
    if stated is not None:
        tokens = f"{job.workload.seq_len} tokens"
    if feed is None:
        return tokens
    return f"{tokens} with {feed.brief}" if feed.has_tokens else feed.brief


def _shared(
    jobs: Mapping[str, Job], precision: str, models: dict[tuple[str, str], ModelSpec]
) -> dict[str, Job]:
    """The jobs with the models of others that train the same in the same precision."""
    return {
        name: replace(job, model=models.setdefault((name, precision), job.model))
        for name, job in jobs.items()
    }


def _jobs(gpu: Gpu, said: Flags) -> dict[str, Job]:
    whole = _whole(gpu, said)
    return {"": whole, **{other.name: other.job for other in alternatives(whole)}}


def _whole(gpu: Gpu, said: Flags) -> Job:
    """The job that trains all of the model."""
    precision = usual_precision(gpu.name)
    flags = replace(said, gpu=gpu.name, gpus_per_node=1, checkpointing=True)
    whole = as_assumed(without_config(default_config(precision), flags))
    attention = fastest(whole.model.arch.family, precision)
    return replace(whole, workload=replace(whole.workload, attention=attention))


def _size(job: Job, name: str, ranks: ParallelDims) -> Sized | None:
    """The job there; None where DeepSpeed refuses it."""
    job = replace(job, cluster=job.cluster.of(ranks))
    strategy = next(s for s in strategies(job) if s.name == name)
    largest = max((tensor.numel for tensor in job.model.parameters), default=0)
    ladder = ladder_of(strategy, largest)
    setting = ladder.both(ladder.host[-1], ladder.corners[-1])
    values = chosen_config(job.document.values, strategy, setting, micro_batch=1, grad_accum=1)
    sizing = size(replace(job, document=document.from_mapping(values)))
    return sized(sizing, ranks.world_size)


def sized(sizing: Sizing, gpus: int) -> Sized | None:
    """Keep what many cards share of a sizing; None where DeepSpeed refuses the job."""
    if not sizing.is_valid:
        return None
    peaks = sizing.peaks
    return Sized(
        need=sizing.needs[Device.GPU],
        capacity=sizing.capacities[Device.GPU],
        enough=Enough(
            gpus=gpus,
            gpu_bytes=peaks[Device.GPU].num_bytes,
            host_bytes=peaks[Device.HOST].num_bytes,
        ),
    )
