"""Which plans fit, and which of them is fastest.

Memory grows with the micro batch, so the largest that fits is found by bisection; every smaller
one fits too and is ranked by time. Memory shrinks with the buffers, while time grows: where the
smallest buffers allow no larger micro batch than DeepSpeed's defaults, smaller ones cannot win. A
test holds both shortcuts against trying everything.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from zero_sizer import checks
from zero_sizer.advise.batch import Batch
from zero_sizer.advise.config import chosen_config, strategy_config
from zero_sizer.advise.limits import Limits, Shortfall
from zero_sizer.advise.strategy import Setting, Strategy, settings_of, strategies
from zero_sizer.advise.sweep import Sweep, Use
from zero_sizer.advise.view import Values
from zero_sizer.config import document, resolve
from zero_sizer.findings import ACTIVATIONS_UNKNOWN, Finding, Severity
from zero_sizer.hardware.device import Device
from zero_sizer.job.read import Job
from zero_sizer.ledger import entries as features
from zero_sizer.ledger.entry import Allocation, evaluate
from zero_sizer.ledger.verdict import is_doubt
from zero_sizer.plan.plan import Plan
from zero_sizer.plan.resolve import plan_job
from zero_sizer.timeline.remarks import remarks


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One plan that was considered.

    Attributes:
        nodes: nodes it runs on.
        seconds: predicted time of one optimizer step; 0 when no GPU was named.
        tokens: tokens of one step over all ranks.
        uses: peaks per device.
    """

    strategy: Strategy
    setting: Setting
    checkpointing: bool
    micro_batch: int
    grad_accum: int
    nodes: int
    world_size: int
    seconds: float
    tokens: int
    uses: Mapping[Device, Use]

    @property
    def seconds_per_token(self) -> float:
        """What plans are ranked by."""
        return self.seconds / self.tokens

    @property
    def tokens_per_second(self) -> float:
        """Over all GPUs."""
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def train_batch(self) -> int:
        """Samples of one step."""
        return self.micro_batch * self.grad_accum * self.world_size

    @property
    def rank_key(self) -> tuple[float, int, bool, int]:
        """Fastest first; among equals the simplest."""
        written = len(self.setting.keys) if self.setting.values else 0
        return (self.seconds_per_token, self.strategy.simplicity, self.checkpointing, written)


@dataclass(frozen=True, kw_only=True)
class Loss:
    """A strategy of which no plan fits, or that DeepSpeed would refuse.

    Attributes:
        closest: the plan that is short of least, if any could be made.
        shortfalls: what it is short of.
        entries: the largest allocations at that moment on the first device.
        refusals: why DeepSpeed would not run it.
        reason: why there was nothing to try, in words.
    """

    strategy: Strategy
    closest: Candidate | None = None
    shortfalls: tuple[Shortfall, ...] = ()
    entries: tuple[Allocation, ...] = ()
    refusals: tuple[Finding, ...] = ()
    reason: str = ""


class _Group:
    """Candidates that differ in the batch alone, made when asked for: few of them are."""

    def __init__(
        self, sizes: Sequence[tuple[int, int]], candidate: Callable[..., Candidate]
    ) -> None:
        self._sizes = sizes
        self._candidate = candidate

    def __len__(self) -> int:
        return len(self._sizes)

    def __getitem__(self, number: int) -> Candidate:
        micro_batch, grad_accum = self._sizes[number]
        return self._candidate(micro_batch=micro_batch, grad_accum=grad_accum)


class Search:
    """Candidates of one job over any number of nodes.

    Args:
        job: what the user said; its stage, offload, batch and buffers are free.
        batch: what is fixed about the batch.
        limits: what each device allows.
        tick: called after every strategy.

    Attributes:
        sweep: evaluates any candidate; None where DeepSpeed would run no strategy.
        warnings: what is not counted, for any candidate.
    """

    def __init__(
        self, job: Job, batch: Batch, limits: Limits, tick: Callable[[], None] = lambda: None
    ) -> None:
        self.job = job
        self.batch = batch
        self.limits = limits
        self.considered = 0  # plans whose fit was decided, most of them by their neighbours'
        self.strategies = strategies(job)
        self._tick = tick
        prepared = {strategy.name: self._prepare(strategy) for strategy in self.strategies}
        self._refusals = {name: errors for name, (plan, errors) in prepared.items() if not plan}
        plans = {name: plan for name, (plan, _) in prepared.items() if plan}
        self.sweep = Sweep(plans, job.cluster) if plans else None
        about = remarks(next(iter(plans.values()))) if plans else ()
        doubts = {d: None for s in self.strategies for d in doubts_of(self._job_of_strategy(s))}
        self.warnings = (*doubts, *(f for f in about if f.severity is Severity.WARNING))

    @property
    def knows_activations(self) -> bool:
        """Whether memory is known to grow with the micro batch; only the smallest is tried else."""
        return all(finding.code != ACTIVATIONS_UNKNOWN for finding in self.warnings)

    def best(self, strategy: Strategy, nodes: int) -> Candidate | None:
        """The fastest plan of a strategy that fits; None: ``loss`` says why there is none."""
        found = min(self.fitting(strategy, nodes), key=lambda c: c.rank_key, default=None)
        self._tick()
        return found

    def loss(self, strategy: Strategy, nodes: int) -> Loss:
        """Why no plan of a strategy fits."""
        if strategy.name in self._refusals:
            return Loss(strategy=strategy, refusals=self._refusals[strategy.name])
        if nodes < strategy.needs_nodes:
            return Loss(strategy=strategy, reason="says nothing new on one node")
        smallest = [groups[-1][0] for groups in self._groups(strategy, nodes)]
        if not smallest:
            return Loss(
                strategy=strategy,
                reason=f"{self.batch.about} cannot be split over {self._world_size(nodes)} GPUs",
            )
        closest = min(smallest, key=lambda c: _missing(self._shortfalls(c)))
        shortfalls = tuple(self._shortfalls(closest))
        return Loss(
            strategy=strategy,
            closest=self._timed(closest),
            shortfalls=shortfalls,
            entries=largest(self.plan(closest), shortfalls[0]),
        )

    def can_split(self, nodes: int) -> bool:
        """Whether the train batch can be split over the ranks of so many nodes."""
        return bool(self.batch.choices(self._world_size(nodes)))

    def fitting(self, strategy: Strategy, nodes: int) -> Iterator[Candidate]:
        """The plans of a strategy that fit, less those that others of them are sure to beat."""
        if strategy.name in self._refusals or nodes < strategy.needs_nodes:
            return
        for default, *smaller in self._groups(strategy, nodes):
            self.considered += len(default) * (1 + len(smaller))
            if smaller and not self._fits(smaller[-1][0]):
                continue  # not even one sample with the smallest buffers
            found = self._fitting(default)
            yield from found
            is_short = bool(smaller) and len(found) < len(default)
            if is_short and self._fits(smaller[-1][len(found)]):
                for group in smaller:
                    yield from self._fitting(group)

    def all_fitting(self, strategy: Strategy, nodes: int) -> Iterator[Candidate]:
        """Every plan of a strategy that fits, each tried."""
        if strategy.name in self._refusals or nodes < strategy.needs_nodes:
            return
        for groups in self._groups(strategy, nodes):
            for group in groups:
                candidates = map(group.__getitem__, range(len(group)))
                yield from (self._timed(c) for c in candidates if not self._shortfalls(c))

    def _prepare(self, strategy: Strategy) -> tuple[Plan | None, tuple[Finding, ...]]:
        plan, errors = plan_of(self._job_of_strategy(strategy))
        return (None if errors else plan), errors

    def _job_of_strategy(self, strategy: Strategy) -> Job:
        values = strategy_config(self.job.document.values, strategy)
        return replace(
            self.job,
            document=document.from_mapping({"train_micro_batch_size_per_gpu": 1, **values}),
            workload=replace(self.job.workload, micro_batch=None, grad_accum=None),
        )

    def _world_size(self, nodes: int) -> int:
        cluster = self.job.cluster
        return cluster.world_size if nodes == cluster.nodes else nodes * cluster.gpus_per_node

    def _groups(self, strategy: Strategy, nodes: int) -> Iterator[list["_Group"]]:
        """Per choice of checkpointing and per setting of buffers: micro batches, smallest first."""
        ranks = self._world_size(nodes)
        stated = self.job.workload.checkpointing
        sizes = self.batch.choices(ranks)
        sizes = sizes if self.knows_activations else sizes[:1]
        for checkpointing in ((False, True) if stated is None else (stated,)) if sizes else ():
            yield [
                _Group(
                    sizes,
                    partial(
                        Candidate,
                        strategy=strategy,
                        setting=setting,
                        checkpointing=checkpointing,
                        nodes=nodes,
                        world_size=ranks,
                        seconds=0.0,
                        tokens=0,
                        uses={},
                    ),
                )
                for setting in settings_of(strategy)
            ]

    def _fitting(self, group: "_Group") -> list[Candidate]:
        """The candidates of a group that fit, timed."""
        low, high = 0, len(group)  # group[:low] fits, group[high:] does not
        while low < high:
            middle = min(2 * low, (low + high) // 2)  # most groups end early: gallop
            if not self._fits(group[middle]):
                high = middle
            else:
                low = middle + 1
        return [self._timed(group[number]) for number in range(low)]

    def _fits(self, candidate: Candidate) -> bool:
        values, offloads = self._values(candidate), candidate.strategy.offloads
        return not any(
            self.limits.shortfalls(uses(values), offloads)
            for uses in (self._swept.at_least, self._swept.uses)
        )

    def _shortfalls(self, candidate: Candidate) -> list[Shortfall]:
        return self.limits.shortfalls(self._uses(candidate), candidate.strategy.offloads)

    def _uses(self, candidate: Candidate) -> Mapping[Device, Use]:
        return self._swept.uses(self._values(candidate))

    @property
    def seq_len(self) -> int:
        """Tokens of one sample."""
        return self._swept.seq_len

    @property
    def _swept(self) -> Sweep:
        if self.sweep is None:
            raise LookupError("no strategy can be planned")
        return self.sweep

    def _values(self, candidate: Candidate) -> Values:
        return self._swept.values(
            candidate.strategy.name,
            dp_world_size=candidate.world_size,
            micro_batch=candidate.micro_batch,
            grad_accum=candidate.grad_accum,
            checkpointing=candidate.checkpointing,
            **candidate.setting.values,
        )

    def _timed(self, candidate: Candidate) -> Candidate:
        values = self._values(candidate)
        return replace(
            candidate,
            seconds=self._swept.seconds(values),
            tokens=candidate.train_batch * self.seq_len,
            uses=self._swept.uses(values),
        )

    def plan(self, candidate: Candidate) -> Plan:
        """The candidate's whole plan."""
        return self._swept.plan(self._values(candidate))

    def job_of(self, candidate: Candidate) -> Job:
        """The candidate as a job of its own, for ``sizing.size`` or a config file."""
        values = chosen_config(
            self.job.document.values,
            candidate.strategy,
            candidate.setting,
            micro_batch=candidate.micro_batch,
            grad_accum=candidate.grad_accum,
        )
        cluster = self.job.cluster
        if candidate.nodes != cluster.nodes or candidate.world_size != cluster.world_size:
            gpus = candidate.world_size // candidate.nodes  # a part of a node, or all of each
            cluster = replace(cluster, nodes=candidate.nodes, gpus_per_node=gpus, slots=())
        return replace(
            self.job,
            document=document.from_mapping(values, source="(chosen)"),
            cluster=cluster,
            workload=replace(
                self.job.workload,
                micro_batch=None,
                grad_accum=None,
                checkpointing=candidate.checkpointing,
            ),
        )


def plan_of(job: Job) -> tuple[Plan | None, tuple[Finding, ...]]:
    """The plan of a job, and the findings that stop it."""
    context, found = _resolved(job)
    planned = plan_job(job, context.settings)
    everything = (*found, *checks.run(context), *planned.findings)
    errors = tuple(f for f in everything if f.severity is Severity.ERROR)
    unknown = tuple(planned.findings) if planned.plan is None else ()
    return planned.plan, errors or unknown


def doubts_of(job: Job) -> tuple[Finding, ...]:
    """What the rules say is not counted of a job."""
    context, _ = _resolved(job)
    return tuple(finding for finding in checks.run(context) if is_doubt(finding))


def _resolved(job: Job) -> tuple[checks.Context, list[Finding]]:
    settings, found = resolve.resolve(
        job.document, job.workload, world_size=job.cluster.world_size, model=job.model
    )
    context = checks.Context(
        document=job.document,
        settings=settings,
        cluster=job.cluster,
        workload=job.workload,
        model=job.model,
    )
    return context, list(found)


def largest(plan: Plan, shortfall: Shortfall, count: int = 3) -> tuple[Allocation, ...]:
    """The largest allocations on a device at the moment of its peak."""
    live = [
        allocation
        for allocation in evaluate(features.ENTRIES, plan, explain=False)
        if allocation.device is shortfall.device and shortfall.moment in allocation.moments
    ]
    return tuple(sorted(live, key=lambda a: -a.num_bytes)[:count])


def _missing(shortfalls: list[Shortfall]) -> tuple[int, int]:
    """Order of closeness: what is short first by devices, then by bytes."""
    return (len(shortfalls), sum(s.over_bytes or s.need_bytes for s in shortfalls))
