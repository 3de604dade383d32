"""The plan to run on a cluster, the largest job for it, and the cluster for a job."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial

from zero_sizer.advise import choose as advice
from zero_sizer.advise.choose import Choice, Options
from zero_sizer.advise.config import with_usual_precision
from zero_sizer.advise.fleet import Fleet, fewest_in_time, fleet
from zero_sizer.advise.largest import Largest, largest_of
from zero_sizer.advise.sizes import node_counts
from zero_sizer.advise.strategy import strategies
from zero_sizer.config.workload import INFERENCE
from zero_sizer.errors import InputError
from zero_sizer.job.fields import RUN, Flags
from zero_sizer.job.read import Job
from zero_sizer.models.feeds import feed_of
from zero_sizer.questions.jobs import goal_of
from zero_sizer.util.gc_paused import collector_off
from zero_sizer.util.records import dataclass

FEWEST = ("gpus", "nodes")
Progress = Callable[[str, int], AbstractContextManager[Callable[[], None]]]
"""Title and number of steps -> what is called after each of them."""


def unseen(title: str, total: int) -> AbstractContextManager[Callable[[], None]]:
    """Progress that nobody watches."""
    return nullcontext(lambda: None)


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """Options of ``choose`` and ``size`` beside the job.

    Attributes:
        train_batch_size: samples of a step over all GPUs; free where nothing says.
        margin: share of every device to leave free.
        max_nodes: up to so many are tried; of ``size``, like those below.
        fewest: of ``FEWEST``: what to count.
        target_tokens_per_second: over all GPUs.
    """

    train_batch_size: int | None = None
    margin: float | None = None
    max_nodes: int = 64
    fewest: str = FEWEST[0]
    target_tokens_per_second: float | None = None


@collector_off()
def choose(job: Job, flags: Flags, wishes: Wishes, progress: Progress = unseen) -> Choice:
    """The fastest plan that fits.

    Raises:
        ZeroSizerError: the question makes no sense.
    """
    wanted = _options(job, flags, wishes)
    job = _prepared(job, progress)
    with progress("choosing", len(strategies(job))) as tick:
        choice = advice.choose(job, replace(wanted, tick=tick))
        goal = wanted.goal
        if goal is not None and goal.target_days is not None and choice.run is not None:
            choice = replace(choice, in_time=fewest_in_time(job, wanted))
    return choice


@collector_off()
def largest(job: Job, flags: Flags, what: str) -> Largest:
    """The largest micro batch, sequence, model or LoRA rank that ``check`` calls a fit.

    Raises:
        InputError: a training run, which it says nothing about, was stated.
    """
    for option in RUN:
        if getattr(flags, option.name) is not None:
            raise InputError(
                "not with --largest", remedy="leave one of the two out", where=option.flag
            )
    if job.workload.task == INFERENCE:
        from zero_sizer.advise import largest_inference

        return largest_inference.largest_of(job, what)
    job = _prepared(job, unseen)
    if what == "batch-size":
        raise InputError(
            "is about inference",
            remedy="ask --largest micro-batch, or add --task inference",
            where="--largest batch-size",
        )
    from zero_sizer.advise.left_open import as_assumed

    return largest_of(as_assumed(job), what)


@collector_off()
def size(job: Job, flags: Flags, wishes: Wishes, progress: Progress = unseen) -> Fleet:
    """The fewest nodes that fit.

    Raises:
        ZeroSizerError: the question makes no sense.
    """
    speed, most = wishes.target_tokens_per_second, wishes.max_nodes
    if speed is not None and flags.target_days is not None:
        raise InputError(
            "two targets", remedy="give this or --target-tokens-per-second", where="--target-days"
        )
    wanted = _options(job, flags, wishes)
    job = _prepared(job, progress)
    find = partial(fleet, max_nodes=most, fewest_of=wishes.fewest, tokens_per_second=speed)
    with progress("sizing", len(node_counts(most)) * len(strategies(job))) as tick:
        return find(job, replace(wanted, tick=tick))


def _prepared(job: Job, progress: Progress) -> Job:
    """The job in the precision that its plans have, its model traced where it is fed."""
    job = with_usual_precision(job)
    if job.workload.task != INFERENCE and feed_of(job.model) is not None:
        from zero_sizer.questions.profile import VARIANTS, with_variants

        with progress(f"tracing {job.model.name}, once", len(VARIANTS)) as tick:
            with_variants(job, lambda line: tick())  # told as each begins
    return job


def refuse_nodes(flags: Flags) -> None:
    """Stops at a number of nodes where that is the answer.

    Raises:
        InputError: it was stated.
    """
    if flags.nodes is not None:
        raise InputError(
            "does not apply: how many are needed is the answer",
            remedy="--max-nodes says up to how many are tried",
            where="--nodes",
        )


def _options(job: Job, flags: Flags, wishes: Wishes) -> Options:
    goal = goal_of(flags, job)
    return Options(margin=wishes.margin, train_batch=wishes.train_batch_size, goal=goal)
