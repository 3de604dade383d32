"""The best plan on a given cluster, and why the others are not."""

from collections.abc import Callable
from dataclasses import dataclass

from zero_sizer.advise.batch import batch_of
from zero_sizer.advise.limits import Limits, limits_of
from zero_sizer.advise.search import Candidate, Loss, Search
from zero_sizer.advise.verdict import verdict_of
from zero_sizer.errors import InputError
from zero_sizer.findings import Reason
from zero_sizer.job.read import Job
from zero_sizer.ledger.verdict import Verdict


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The answer to "what should I run on this cluster?".

    Attributes:
        search: what was searched; makes a job of a candidate.
        ranked: the best plan of each strategy that fits, fastest first; empty when nothing fits.
        losses: strategies that do not fit, closest first.
        considered: plans whose fit was decided.
        verdict: of the plan to run; without one, whether it is certain that nothing fits.
        reasons: what decides the verdict.
    """

    search: Search
    ranked: tuple[Candidate, ...]
    losses: tuple[Loss, ...]
    considered: int
    verdict: Verdict
    reasons: tuple[Reason, ...]

    @property
    def winner(self) -> Candidate | None:
        """The plan to run."""
        return self.ranked[0] if self.ranked else None


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line adds to the job.

    Attributes:
        margin: share of every device to leave free, instead of ``limits.MARGINS``.
        train_batch: samples of a step over all ranks, where the config does not fix them.
        tick: called after every strategy.
    """

    margin: float | None = None
    train_batch: int | None = None
    tick: Callable[[], None] = lambda: None


def search_of(job: Job, options: Options) -> Search:
    """A search over the job's strategies.

    Raises:
        InputError: no GPU memory to fit anything into.
    """
    limits: Limits = limits_of(job.cluster, options.margin, job.workload)
    if job.cluster.gpu is None:
        raise InputError(
            "no GPU: nothing says how fast it is" + ("" if job.cluster.gpu_memory else " or large"),
            remedy="add --gpu h100-80gb (`zero-sizer gpus` lists them)",
        )
    batch = batch_of(job.document, job.workload, job.cluster.world_size, options.train_batch)
    return Search(job=job, batch=batch, limits=limits, tick=options.tick)


def choose(job: Job, options: Options | None = None) -> Choice:
    """Rank the strategies on the job's own cluster."""
    search = search_of(job, options or Options())
    nodes = job.cluster.nodes
    found = [(strategy, search.best(strategy, nodes)) for strategy in search.strategies]
    ranked = sorted((plan for _, plan in found if plan), key=lambda c: c.rank_key)
    losses = sorted((search.loss(s, nodes) for s, plan in found if not plan), key=_closeness)
    verdict, reasons = verdict_of(search, ranked[0] if ranked else None, losses)
    return Choice(
        search=search,
        ranked=tuple(ranked),
        losses=tuple(losses),
        considered=search.considered,
        verdict=verdict,
        reasons=reasons,
    )


def _closeness(loss: Loss) -> tuple[bool, int]:
    missing = sum(s.over_bytes or s.need_bytes for s in loss.shortfalls)
    return (not loss.shortfalls, missing)
