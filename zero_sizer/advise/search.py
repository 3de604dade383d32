"""Which plans fit, and which of them is fastest."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from itertools import chain, islice

from zero_sizer.advise.batch import Batch
from zero_sizer.advise.candidate import Candidate, Lazily, RejectedStrategy
from zero_sizer.advise.config import chosen_config
from zero_sizer.advise.ladder import Tuning, wider_windows
from zero_sizer.advise.ladders import job_of_strategy, ladder_for
from zero_sizer.advise.lasting import Use
from zero_sizer.advise.limits import Limits, Shortfall, missing_of, spares_host
from zero_sizer.advise.planned import costs_of, doubts_of, largest, plan_or_errors, shared_error
from zero_sizer.advise.strategy import Strategy, strategies
from zero_sizer.advise.sweep import Sweep
from zero_sizer.advise.view import Values
from zero_sizer.advise.walk import WORTH_IT, Probe, Walk
from zero_sizer.config import document
from zero_sizer.findings import ACTIVATIONS_UNKNOWN, Finding, Severity
from zero_sizer.hardware.device import Device
from zero_sizer.job.read import Job
from zero_sizer.ledger.moments import PASSES, Moment
from zero_sizer.parallel import laid_out
from zero_sizer.plan.plan import Plan
from zero_sizer.timeline.remarks import remarks

_EVERY = (2, 3, 4, 8)  # of so many blocks one is checkpointed, where all is free
_ROUND = 0.98  # share of its speed that a plan keeps with a rounder micro batch


class Search:
    """Candidates of one job over any number of nodes.

    Args:
        job: what the user said; its stage, offload, batch and buffers are free.
        batch: what is fixed about the batch.
        limits: what each device allows.
        tick: called after every strategy.
        is_thorough: try what saves little, too.

    Attributes:
        sweep: evaluates any candidate; None where DeepSpeed would run no strategy.
        warnings: what is not counted, for any candidate.
    """

    def __init__(
        self,
        job: Job,
        batch: Batch,
        limits: Limits,
        tick: Callable[[], None] = lambda: None,
        *,
        is_thorough: bool = False,
    ) -> None:
        self.job = job
        self._is_thorough = is_thorough
        self.batch = batch
        self.limits = limits
        self.considered = 0  # plans whose fit was decided, most of them by their neighbours'
        self.strategies = strategies(job)
        self._tick = tick
        self._probe = self._probes()
        self._how = job.workload.checkpointing_how
        self._hows = {every: replace(self._how, every=every) for every in (1, *_EVERY)}
        self._hows[self._how.every] = self._how
        self._hints: defaultdict[tuple[str, int], dict[str, int]] = defaultdict(dict)
        prepared = {strategy.name: self._prepare(strategy) for strategy in self.strategies}
        self.ladders = {s.name: ladder_for(job, s, prepared[s.name][0]) for s in self.strategies}
        self._refusals = {name: errors for name, (plan, errors) in prepared.items() if not plan}
        plans = {name: plan for name, (plan, _) in prepared.items() if plan}
        self.sweep = Sweep(plans, job.cluster) if plans else None
        about = remarks(next(iter(plans.values()))) if plans else ()
        doubts = {s.name: doubts_of(job_of_strategy(job, s)) for s in self.strategies}
        self._beside = {name: costs_of(found) for name, found in doubts.items()}
        every = dict.fromkeys(chain.from_iterable(doubts.values()))
        self.warnings = (*every, *(f for f in about if f.severity is Severity.WARNING))

    @property
    def knows_activations(self) -> bool:
        """True if memory is known to grow with the micro batch; only the smallest is tried else."""
        return all(finding.code != ACTIVATIONS_UNKNOWN for finding in self.warnings)

    @property
    def refusal(self) -> Finding | None:
        """Error of every strategy, for which nothing can run whatever the memory."""
        return None if self.sweep is not None else shared_error(self._refusals.values())

    def best(self, strategy: Strategy, nodes: int) -> Candidate | None:
        """The fastest plan of a strategy that fits; None: ``loss`` says why there is none."""
        found = None
        for walk in self._walks(strategy, nodes):
            found = walk.best(found)
        self._tick()
        return found

    def thorough(self) -> "Search":
        """Search that tries what saves little, too; evaluations are kept."""
        other = copy(self)
        other._is_thorough = True
        return other

    def may_fit(self, strategy: Strategy, nodes: int) -> bool:
        """True if one of the most frugal plans of a strategy fits."""
        is_usable = strategy.name not in self._refusals and nodes >= strategy.needs_nodes
        return is_usable and any(map(self.fits, self.smallest(strategy, nodes)))

    def refined(self, plan: Candidate, fastest: Candidate) -> Candidate:
        """A plan with some blocks checkpointed, where one of its strategy may be the fastest.

        None of them takes a larger micro batch than checkpointing of all blocks does. Room that is
        left keeps weights gathered from forward to backward.
        """
        of, kinds = (plan.strategy, plan.nodes), self._checkpointing
        if 0 in kinds and kinds[-1] == 1 and not self._how.about and self.knows_activations:
            kinds = (0, *_EVERY)
        reach = max(walk.reach() for walk in self._walks(*of, self._checkpointing[-1:]))
        for walk in self._walks(*of, kinds):
            if walk.may_beat(fastest, reach):
                plan = walk.best(plan, reach) or plan
                fastest = min(plan, fastest, key=lambda c: c.rank_key)
        fitting = [
            self.timed(found)
            for windows in wider_windows(plan.strategy, self.job.model.num_params)
            for found in self._first_fit(replace(plan, setting=plan.setting + w) for w in windows)
        ]
        faster = [c for c in fitting if c.seconds <= plan.seconds * WORTH_IT]
        return min(faster, key=lambda c: c.rank_key, default=plan)

    def _first_fit(self, tried: Iterable[Candidate]) -> list[Candidate]:
        return list(islice(filter(self.fits, tried), 1))

    def outlook(self, strategy: Strategy, nodes: int, best: Candidate) -> tuple[bool, bool]:
        """Tells without a walk if any plan of a strategy fits, and if one may be faster."""
        reaches = [(walk, walk.reach()) for walk in self._walks(strategy, nodes)]
        fitting = [(walk, reach) for walk, reach in reaches if reach >= 0]
        may_win = any(walk.may_beat(best, reach) for walk, reach in fitting)
        if not may_win:
            self._tick()  # its best plan is not looked for
        return bool(fitting), may_win

    def simplest(self, candidate: Candidate, *, as_fast: bool = True) -> Candidate:
        """Changes as few keys of a plan as it takes to fit, and to be as fast."""
        most = candidate.seconds / WORTH_IT if as_fast else math.inf
        for key in reversed(list(candidate.setting.keys)):
            found = self.timed(replace(candidate, setting=candidate.setting.without(key)))
            if found.seconds <= most and self.fits(found):
                candidate = found
        return candidate

    def at_batch_of(self, fastest: Candidate) -> "Search":
        """Search at the batch of a plan without accumulation, so that others can split it.

        A micro batch of 37 would leave them 37 and 1: a rounder one below it is taken where that
        costs little.
        """
        for step in (8, 4, 2, 1):
            size = fastest.micro_batch // step * step
            found = self.timed(replace(fastest, micro_batch=size)) if size else fastest
            if found.seconds_per_token * _ROUND <= fastest.seconds_per_token:
                return self.at_batch(replace(self.batch, train_batch=found.train_batch))
        return self.at_batch(replace(self.batch, train_batch=fastest.train_batch))

    def at_batch(self, batch: Batch) -> "Search":
        """Search with another batch; evaluations are kept."""
        other = copy(self)
        other.batch = batch
        other._hints = defaultdict(dict)
        other._probe = other._probes()
        return other

    def loss(self, strategy: Strategy, nodes: int) -> RejectedStrategy:
        """Why no plan of a strategy fits."""
        if strategy.name in self._refusals:
            return RejectedStrategy(strategy=strategy, refusals=self._refusals[strategy.name])
        if nodes < strategy.needs_nodes:
            return RejectedStrategy(strategy=strategy, reason="same as ZeRO-3 on one node")
        smallest = list(self.smallest(strategy, nodes))
        if not smallest:
            return RejectedStrategy(
                strategy=strategy,
                reason=f"{self.batch.about} cannot be split over {self._world_size(nodes)} GPUs",
            )
        closest = min(smallest, key=lambda c: missing_of(self._shortfalls(c)))
        shortfalls = tuple(self._shortfalls(closest))
        uses = [self._uses(candidate) for candidate in smallest]
        return RejectedStrategy(
            strategy=strategy,
            closest=self.timed(closest),
            shortfalls=shortfalls,
            entries=largest(self.plan(closest), shortfalls[0]) if shortfalls else (),
            least={d: min(use[d].num_bytes for use in uses) for d in Device},
        )

    def smallest(self, strategy: Strategy, nodes: int) -> Iterator[Candidate]:
        """The plans of a strategy among which are those that need least of each device."""
        sizes = self._sizes(nodes)
        stated = self.job.workload.checkpointing
        for rung in self.ladders[strategy.name].frugal if sizes else ():
            every = 0 if stated is False else self._how.every
            yield self._candidate(strategy, nodes, every, rung, sizes[0])

    def can_split(self, nodes: int) -> bool:
        """True if the train batch can be split over the ranks of so many nodes."""
        return bool(self.batch.choices(self._world_size(nodes)))

    def all_fitting(self, strategy: Strategy, nodes: int) -> Iterator[Candidate]:
        """Every plan of a strategy that fits, each tried."""
        if strategy.name in self._refusals or nodes < strategy.needs_nodes:
            return
        for every in self._checkpointing:
            for rung in self.ladders[strategy.name].every:
                for size in self._sizes(nodes):
                    found = self._candidate(strategy, nodes, every, rung, size)
                    if not self._shortfalls(found):
                        yield self.timed(found)

    def _probes(self) -> Probe:
        return Probe(
            fits=self.fits,
            host_may_fit=self._host_may_fit,
            short=self._short,
            pace=self._pace,
            timed=self.timed,
        )

    def _prepare(self, strategy: Strategy) -> tuple[Plan | None, tuple[Finding, ...]]:
        plan, errors = plan_or_errors(job_of_strategy(self.job, strategy))
        return (None if errors else plan), errors

    def _world_size(self, nodes: int) -> int:
        cluster = self.job.cluster
        return cluster.world_size if nodes == cluster.nodes else nodes * cluster.gpus_per_node

    def _sizes(self, nodes: int) -> Sequence[tuple[int, int]]:
        """Micro batches worth trying, with their accumulation steps."""
        sizes = self.batch.choices(self._world_size(nodes))
        return sizes if self.knows_activations else sizes[:1]

    @property
    def _checkpointing(self) -> tuple[int, ...]:
        """Of how many blocks one is checkpointed; 0: none is."""
        stated, every = self.job.workload.checkpointing, self._how.every
        return (0, every) if stated is None else (every if stated else 0,)

    def _walks(self, strategy: Strategy, nodes: int, kinds: tuple[int, ...] = ()) -> Iterator[Walk]:
        if strategy.name in self._refusals or nodes < strategy.needs_nodes:
            return
        sizes, ladder = self._sizes(nodes), self.ladders[strategy.name]
        for every in (kinds or self._checkpointing) if sizes else ():
            self.considered += len(sizes) * len(ladder.every)
            yield Walk(
                ladder,
                sizes,
                partial(self._candidate, strategy, nodes, every),
                self._probe,
                self._hints[strategy.name, every],
                is_thorough=self._is_thorough,
            )

    def _candidate(
        self,
        strategy: Strategy,
        nodes: int,
        every: int,
        rung: Tuning,
        size: tuple[int, int],
    ) -> Candidate:
        return Candidate(
            strategy=strategy,
            setting=rung,
            checkpointing=bool(every),
            every=every or 1,
            micro_batch=size[0],
            grad_accum=size[1],
            nodes=nodes,
            world_size=self._world_size(nodes),
            seconds=0.0,
            tokens=0,
            uses={},
        )

    def _host_may_fit(self, candidate: Candidate) -> bool:
        """Whether host and NVMe take a candidate, as far as is known without its batch."""
        return spares_host(self._short_of(candidate, self._swept.at_least))

    def _short(self, candidate: Candidate) -> Mapping[Device, Moment]:
        """When most is held of the devices that are short, before the batch is counted if then."""
        sweep = self._swept
        found = self._short_of(candidate, sweep.at_least)
        if not found:
            found = self._short_of(candidate, sweep.without_zero)
            if not any(s.device is Device.GPU and s.moment in PASSES for s in found):
                found = self._short_of(candidate, sweep.uses)
        return {shortfall.device: shortfall.moment for shortfall in found}

    def fits(self, candidate: Candidate) -> bool:
        """True if a candidate fits, margin and all, and DeepSpeed does not stop in it."""
        return self._has_room(candidate) and not self._swept.stops(self._values(candidate))

    def _has_room(self, candidate: Candidate) -> bool:
        sweep = self._swept
        if any(self._short_of(candidate, of) for of in (sweep.at_least, sweep.without_zero)):
            return False
        between = sweep.between(self._values(candidate))
        if between is not None:
            if not self._short_of(candidate, lambda _: between[1]):
                return True
            if self._short_of(candidate, lambda _: between[0]):
                return False
        return not self._shortfalls(candidate)

    def _short_of(
        self, candidate: Candidate, uses: Callable[[Values], Mapping[Device, Use]]
    ) -> list[Shortfall]:
        """What a candidate is short of with such peaks of its values."""
        found, of = uses(self._values(candidate)), candidate.strategy
        return self.limits.shortfalls(found, of.offloads, self._beside[of.name])

    @property
    def usable(self) -> list[Strategy]:
        """Strategies that DeepSpeed would run at all."""
        return [s for s in self.strategies if s.name not in self._refusals]

    def _shortfalls(self, candidate: Candidate) -> list[Shortfall]:
        return self._short_of(candidate, self._swept.uses)

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
            checkpointing_how=self._hows[candidate.every],
            **candidate.setting.values,
        )

    def _pace(self, candidate: Candidate) -> float:
        tokens = candidate.train_batch * self.seq_len
        return self._swept.seconds(self._values(candidate)) / tokens

    def timed(self, candidate: Candidate) -> Candidate:
        """The candidate with its time and peaks."""
        values = self._values(candidate)
        return replace(
            candidate,
            seconds=self._swept.seconds(values),
            tokens=candidate.train_batch * self.seq_len,
            uses=Lazily(partial(self._swept.uses, values)),
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
            cluster = cluster.of(laid_out(candidate.world_size, cluster.gpus_per_node))
        return replace(
            self.job,
            document=document.from_mapping(values, source="(chosen)"),
            cluster=cluster,
            workload=replace(
                self.job.workload,
                micro_batch=None,
                grad_accum=None,
                checkpointing=candidate.checkpointing,
                checkpointing_how=self._hows[candidate.every],
            ),
        )
