"""The best plan on a given cluster, and why the others are not."""

from collections.abc import Callable
from dataclasses import replace

from zero_sizer.advise.alternatives import Alternative, alternatives
from zero_sizer.advise.batch import batch_of
from zero_sizer.advise.candidate import Candidate
from zero_sizer.advise.curve import Point, run_of
from zero_sizer.advise.limits import Limits, limits_of
from zero_sizer.advise.rejected import RejectedStrategy, rejection_of
from zero_sizer.advise.search import Search
from zero_sizer.advise.sizes import size_at
from zero_sizer.advise.verdict import verdict_of
from zero_sizer.errors import InputError
from zero_sizer.findings import Reason
from zero_sizer.job.goal import Goal
from zero_sizer.job.read import Job
from zero_sizer.ledger.verdict import Verdict
from zero_sizer.speed.training import Training
from zero_sizer.util.records import dataclass


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
        is_free: nothing fixed the train batch.
        is_tight: only without the usual margin left free does anything fit.
        flags: options without which the plans do not fit: they change the training code.
        others: where nothing fits, other jobs that do, with the best plan of each.
        runs: the training run on each of ``ranked``; empty where nobody says how much is trained,
            or where the plan to run does not fit after all.
        in_time: the fewest nodes that meet a goal of days; None where none was asked for, or met.
    """

    search: Search
    ranked: tuple[Candidate, ...]
    losses: tuple[RejectedStrategy, ...]
    considered: int
    verdict: Verdict
    reasons: tuple[Reason, ...]
    is_free: bool = False
    is_tight: bool = False
    flags: tuple[str, ...] = ()
    others: tuple[tuple[Alternative, Candidate], ...] = ()
    runs: tuple[Training, ...] = ()
    in_time: Point | None = None

    @property
    def winner(self) -> Candidate | None:
        """The plan to run."""
        return self.ranked[0] if self.ranked else None

    @property
    def run(self) -> Training | None:
        """The training run on the plan to run."""
        return self.runs[0] if self.runs else None


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options that the command line adds to the job.

    Attributes:
        margin: share of every device to leave free, instead of ``limits.MARGINS``.
        train_batch: samples of a step over all ranks, where the config does not fix them.
        tick: called after every strategy.
        is_thorough: try what saves little, too.
        goal: the training run to time and price.
    """

    margin: float | None = None
    train_batch: int | None = None
    tick: Callable[[], None] = lambda: None
    is_thorough: bool = False
    goal: Goal | None = None


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
    return Search(job, batch, limits, options.tick, is_thorough=options.is_thorough)


def choose(job: Job, options: Options | None = None) -> Choice:
    """Rank the strategies on the job's own cluster.

    A free batch becomes that of the plan that is fastest without accumulation, and all plans are
    compared at it. Where nothing fits, what saves little is tried too, then without the margin.
    """
    options = options or Options()
    found = _chosen(job, options)
    if found.verdict is Verdict.DOES_NOT_FIT or options.goal is None:
        return found
    runs = [run_of(found.search, plan, options.goal) for plan in found.ranked]
    return replace(found, runs=tuple(run for run in runs if run is not None))


def _chosen(job: Job, options: Options) -> Choice:
    search = search_of(job, options)
    found = _choice(search)
    if found.ranked or not any(loss.closest for loss in found.losses):
        return found
    thorough = _choice(search.thorough())
    if thorough.ranked:
        return thorough
    if options.margin is None:
        limits = limits_of(job.cluster, 0.0, job.workload)
        tight = _choice(search.thorough().within(limits))
        if tight.ranked:
            return replace(tight, is_tight=True)
    return _otherwise(thorough, job, options)


def _otherwise(nothing: Choice, job: Job, options: Options) -> Choice:
    """Another way to train the same where one fits, else what other jobs would."""
    others = []
    for alternative in alternatives(job):
        search = search_of(alternative.job, options)
        plan = _fastest(search)
        if plan is not None and alternative.trains_the_same:
            return replace(_choice(search, in_part=False), flags=alternative.flags)
        if plan is not None:
            others.append((alternative, plan))
    return replace(nothing, others=tuple(others))


def _fastest(search: Search) -> Candidate | None:
    """The plan to run, without those of other strategies beside it; None where nothing fits."""
    nodes = search.job.cluster.nodes
    found = size_at(search, nodes).best or size_at(search.thorough(), nodes).best
    if found is None:
        return None
    if search.batch.is_free:
        search = search.at_batch_of(found)
        found = size_at(search, nodes, found.strategy.name).best or found
    return search.simplest(found)


def _choice(search: Search, *, in_part: bool = True) -> Choice:
    nodes = search.job.cluster.nodes
    found = [(strategy, search.best(strategy, nodes)) for strategy in search.strategies]
    free = search
    fastest = min((plan for _, plan in found if plan), key=lambda c: c.rank_key, default=None)
    if fastest is not None and search.batch.is_free:
        search = search.at_batch_of(fastest)
        # what cannot take that batch is shown at its own, which is no faster
        found = [(strategy, search.best(strategy, nodes) or plan) for strategy, plan in found]
    # what saves little is for strategies that nothing else makes fit, and for the fastest
    thorough = search.thorough()
    for place, (strategy, plan) in enumerate(found):
        if plan is None and thorough.may_fit(strategy, nodes):
            found[place] = strategy, thorough.best(strategy, nodes)
    fitting = sorted((plan for _, plan in found if plan), key=lambda c: c.rank_key)
    for place, plan in enumerate(fitting if in_part else ()):
        rival = min(fitting, key=lambda c: c.rank_key)
        fitting[place] = thorough.refined(plan, rival)
    plans = (search.simplest(plan) for plan in fitting)
    ranked = sorted(plans, key=lambda c: c.rank_key)
    losses = sorted(
        (rejection_of(search, s, nodes) for s, plan in found if not plan), key=_closeness
    )
    verdict, reasons = verdict_of(search, ranked[0] if ranked else None, losses)
    return Choice(
        search=search,
        ranked=tuple(ranked),
        losses=tuple(losses),
        considered=search.considered,
        verdict=verdict,
        reasons=reasons,
        is_free=free.batch.is_free,
    )


def _closeness(loss: RejectedStrategy) -> tuple[bool, int]:
    missing = sum(s.over_bytes or s.need_bytes for s in loss.shortfalls)
    return (not loss.shortfalls, missing)
