"""Which micro batches are worth trying, and the micro steps that go with each."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from zero_sizer.config import document
from zero_sizer.config.batch import ACCUM, MICRO, TRAIN
from zero_sizer.config.document import Document
from zero_sizer.config.workload import Workload
from zero_sizer.job.read import Job
from zero_sizer.util.records import dataclass

_LARGEST = 1024


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Limits that flags and config set to the batch.

    Attributes:
        train_batch: samples of one optimizer step over all ranks, or None when free.
        micro_batch: samples of one micro step on one GPU, or None when free.
        grad_accum: micro steps where the train batch is free.
        keeps_accum: whether they hold where it is fixed, too: a flag said so.
    """

    train_batch: int | None = None
    micro_batch: int | None = None
    grad_accum: int = 1
    keeps_accum: bool = False

    @property
    def is_free(self) -> bool:
        """True if nothing says how many samples a step has."""
        return self.train_batch is None and self.micro_batch is None and not self.keeps_accum

    @property
    def about(self) -> str:
        """Describes the limits for a reader."""
        words = [f"a train batch of {self.train_batch}"]
        if self.micro_batch is not None:
            words.append(f"micro batch {self.micro_batch}")
        if self.keeps_accum:
            steps = "step" if self.grad_accum == 1 else "steps"
            words.append(f"{self.grad_accum} gradient accumulation {steps}")
        return words[0] + (f" ({', '.join(words[1:])})" if len(words) > 1 else "")

    def choices(self, ranks: int) -> Sequence[tuple[int, int]]:
        """(micro batch, accumulation steps) for this many ranks, smallest micro batch first.

        Any micro batch where the train batch is free; otherwise every divisor of a rank's share.
        Empty when the train batch cannot be split over the ranks.
        """
        return _choices(self, ranks)


@lru_cache(maxsize=16)
def _every(grad_accum: int) -> Sequence[tuple[int, int]]:
    return tuple((size, grad_accum) for size in range(1, _LARGEST + 1))


@lru_cache(maxsize=256)
def _choices(batch: Batch, ranks: int) -> Sequence[tuple[int, int]]:
    if batch.train_batch is None:
        if batch.micro_batch is not None:
            return ((batch.micro_batch, batch.grad_accum),)
        return _every(batch.grad_accum)
    share, rest = divmod(batch.train_batch, ranks)
    if rest or not share:
        return ()
    found = [size for size in range(1, min(share, _LARGEST) + 1) if share % size == 0]
    if batch.micro_batch is not None:
        found = [size for size in found if size == batch.micro_batch]
    split = tuple((size, share // size) for size in found)
    if not batch.keeps_accum:
        return split
    return tuple((size, steps) for size, steps in split if steps == batch.grad_accum)


def batch_of(
    text: Document, workload: Workload, ranks: int, train_batch: int | None = None
) -> Batch:
    """Reads the limits of the batch from the flags and the config.

    Flags fix the micro batch and the micro steps. The train batch is fixed by ``train_batch``, by
    the config, or by the config's micro batch and micro steps together with the cluster they were
    written for.
    """
    written = (text.get(name) for name in (MICRO, ACCUM, TRAIN))
    micro, accum, train = (value if _is_count(value) else None for value in written)
    fixed = train_batch or train
    if fixed is None and workload.micro_batch is None and micro and accum:
        fixed = micro * accum * ranks
    return Batch(
        train_batch=fixed,
        micro_batch=workload.micro_batch,
        grad_accum=workload.grad_accum or accum or 1,
        keeps_accum=workload.grad_accum is not None,
    )


def with_batch(job: Job, micro_batch: int, grad_accum: int | None = None) -> Job:
    """The job with another micro batch, written into its config in place of a flag.

    Where ``grad_accum`` is given, the train batch is what follows from both; else it stays stated.
    """
    values = {**job.document.values, MICRO: micro_batch}
    workload = replace(job.workload, micro_batch=None)
    if grad_accum is not None:
        values.pop(TRAIN, None)
        values[ACCUM] = grad_accum
        workload = replace(workload, grad_accum=None)
    text = document.from_mapping(values, source=job.document.source)
    return replace(job, document=text, workload=workload)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
