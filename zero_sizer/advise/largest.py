"""The largest micro batch, sequence, model or LoRA rank that ``check`` calls a fit.

Every answer is found by bisection on the verdict of ``check`` itself, on the plan's own config and
with nothing left free. The config is that of the plan which takes most: the most frugal settings
of every strategy are tried.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from zero_sizer import models
from zero_sizer.advise.alternatives import alternatives
from zero_sizer.advise.batch import with_batch
from zero_sizer.advise.candidate import Candidate
from zero_sizer.advise.choose import Options, search_of
from zero_sizer.advise.ladder import larger_shares
from zero_sizer.errors import InputError
from zero_sizer.findings import Finding
from zero_sizer.job.read import Job
from zero_sizer.ledger.verdict import Verdict
from zero_sizer.models.changes import lora, lora_config
from zero_sizer.models.feeds import feed_of
from zero_sizer.models.positions import longest_sequence
from zero_sizer.sizing import Sizing, size
from zero_sizer.units import round_up
from zero_sizer.util.records import dataclass

WHAT = ("micro-batch", "seq-len", "model", "lora-rank")
_MOST = {"micro-batch": 2**16, "seq-len": 2**22, "lora-rank": 2**14}


@dataclass(frozen=True, kw_only=True)
class Largest:
    """An answer.

    Attributes:
        what: of ``WHAT``.
        value: the largest, or the model's name; None where not even the smallest fits.
        strategy: with which.
        sizing: what ``check`` says of the job at that value.
        beyond: the next larger value, and what ``check`` says of it; None at the top of the range.
        flags: options without which nothing fits: they change the training code.
        limit: why it cannot be larger, where not for memory.
        refusal: error for which nothing can run, however small.
    """

    what: str
    value: int | str | None
    strategy: str = ""
    sizing: Sizing | None = None
    beyond: tuple[int | str, Verdict] | None = None
    flags: tuple[str, ...] = ()
    limit: str = ""
    refusal: Finding | None = None


def fits(job: Job) -> bool:
    """Verdict of ``check`` on a value."""
    found = size(job)
    return found.verdict is Verdict.FITS and found.is_valid


def largest_of(job: Job, what: str, options: Options | None = None) -> Largest:
    """The largest of ``what`` on the job's own cluster.

    Raises:
        InputError: a rank is asked for of a model that has an adapter.
    """
    options = replace(options or Options(), margin=0.0, is_thorough=True)
    if what == "model":
        return _largest_model(job, options)
    if what == "lora-rank" and job.model.adapter is not None:
        raise InputError("the rank is the answer", remedy="leave it out", where="--adapter")
    make, step = partial(_MAKERS[what], job), _STEPS[what]
    longest = longest_sequence(job.model) if what == "seq-len" and job.model is not None else None
    step = min(step, longest or step)  # SigLIP's captions have 64 places
    top, limit = _top(job, what)
    first = _first(job, step) if what == "seq-len" else step
    best = Largest(what=what, value=None)
    for name, found in _frugal_jobs(make(job, first), options):
        at = partial(make, found)
        known = int(best.value or 0)
        if known >= top or not fits(at(max(known + step, first))):
            continue
        value = bisect(_Fits(at, step, first // step), top // step) * step
        if value > known:
            beyond = None if value + step > top else (value + step, size(at(value + step)).verdict)
            sizing = size(at(value))
            best = Largest(
                what=what,
                value=value,
                strategy=name,
                sizing=sizing,
                beyond=beyond,
                limit=limit if beyond is None else "",
            )
    return best if best.value is not None else _otherwise(job, what, options)


def _otherwise(job: Job, what: str, options: Options) -> Largest:
    """The same with another way to train the same, where nothing fits."""
    if job.workload.loss is None and not job.workload.checkpointing_how.about:
        for other in alternatives(job):
            found = largest_of(other.job, what, options) if other.trains_the_same else None
            if found is not None and found.value is not None:
                return replace(found, flags=other.flags)
    return Largest(what=what, value=None, refusal=search_of(job, options).refusal)


class _Fits:
    """Whether a job of so many steps fits; those before the first are not asked for."""

    def __init__(self, at: Callable[[int], Job], step: int, first: int) -> None:
        self._at = at
        self._step = step
        self._first = first

    def __call__(self, number: int) -> bool:
        return number < self._first or fits(self._at(number * self._step))


def bisect(is_fit: Callable[[int], bool], top: int) -> int:
    """The largest number up to ``top`` that is a fit, where all below it are; 0 where none is."""
    low, step = 0, 1
    while low < top:
        middle = min(low + step, top)
        if not is_fit(middle):
            break
        low, step = middle, 2 * step
    else:
        return low
    high = min(low + step, top)
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (middle, high) if is_fit(middle) else (low, middle)
    return low


def _frugal_jobs(job: Job, options: Options) -> Iterator[tuple[str, Job]]:
    """Jobs among which is the one that takes most; what keeps least on the GPU comes first."""
    workload = replace(job.workload, micro_batch=job.workload.micro_batch or 1)
    search = search_of(replace(job, workload=workload), options)
    for strategy in reversed(search.usable):
        if job.cluster.nodes < strategy.needs_nodes:
            continue
        kinds: dict[tuple[Any, Any], Candidate] = {}
        for candidate in search.smallest(strategy, job.cluster.nodes):
            values = candidate.setting.values
            kind = (values.get("reduce_bucket_size"), values.get("optimizer_ratio"))
            if search.fits(candidate):  # pinning and sub-groups decide that, and no more
                kinds.setdefault(kind, candidate)
        for candidate in kinds.values():
            shares = map(candidate.setting.__add__, larger_shares(candidate.setting))
            more = (replace(candidate, setting=setting) for setting in shares)
            for plan in (next(filter(search.fits, more), None), candidate):
                if plan is not None:
                    yield strategy.name, search.job_of(plan)


def _first(job: Job, step: int) -> int:
    """The shortest sequence that has places for what a sample brings beside its text, in steps."""
    feed = feed_of(job.model, job.workload.said)
    return max(round_up(feed.fewest, step) if feed is not None else step, step)


def _micro_batch(_: Job, job: Job, value: int) -> Job:
    return with_batch(job, value)


def _seq_len(_: Job, job: Job, value: int) -> Job:
    return replace(job, workload=replace(job.workload, seq_len=value))


def _lora_rank(base: Job, job: Job, value: int) -> Job:
    found = lora_config.read(f"r={value},targets=all-linear", "--adapter")
    return replace(job, model=lora.with_adapter(base.model, found))


_MAKERS: dict[str, Callable[[Job, Job, int], Job]] = {
    "micro-batch": _micro_batch,
    "seq-len": _seq_len,
    "lora-rank": _lora_rank,
}
_STEPS = {"micro-batch": 1, "seq-len": 128, "lora-rank": 1}


def _top(job: Job, what: str) -> tuple[int, str]:
    """The largest value that makes sense, and why."""
    if what == "seq-len":
        longest = longest_sequence(job.model)
        if longest is not None:
            return longest, f"{job.model.name} has {longest} positions"
    return _MOST[what], "nothing larger was tried"


def _largest_model(job: Job, options: Options) -> Largest:
    """Of those that are bundled, the one with the most parameters of which a plan fits."""
    beyond: tuple[int | str, Verdict] | None = None
    for spec in sorted(map(models.load, models.bundled_names()), key=lambda m: -m.num_params):
        longest = longest_sequence(spec)
        if longest is not None and (job.workload.seq_len or 0) > longest:
            continue
        for name, found in _frugal_jobs(replace(job, model=spec), options):
            sizing = size(found)
            if sizing.verdict is Verdict.FITS and sizing.is_valid:
                return Largest(
                    what="model", value=spec.name, strategy=name, sizing=sizing, beyond=beyond
                )
        beyond = (spec.name, Verdict.DOES_NOT_FIT)
    return Largest(what="model", value=None)
