"""Which plans fit, and which of them is fastest."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from itertools import chain

from zero_sizer.advise.batch import Batch
from zero_sizer.advise.candidate import Candidate, Lazily
from zero_sizer.advise.config import chosen_config
from zero_sizer.advise.ladder import Tuning, wider_windows
from zero_sizer.advise.ladders import job_of_strategy, ladder_for
from zero_sizer.advise.lasting import Use
from zero_sizer.advise.limits import Limits, Shortfall, spares_host
from zero_sizer.advise.planned import costs_of, doubts_of, plan_or_errors, shared_error
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
        refusals: name of a strategy that DeepSpeed would not run -> why.
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
        self.refusals = {name: errors for name, (plan, errors) in prepared.items() if not plan}
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
        return None if self.sweep is not None else shared_error(self.refusals.values())

    def best(self, strategy: Strategy, nodes: int) -> Candidate | None:
        """The fastest plan of a strategy that fits, if any does."""
        found = None
        for walk in self._walks(strategy, nodes):
            found = walk.best(found)
        self._tick()
        return found

    def thorough(self) -> "Search":
        """Search that tries what saves little, too; evaluations are kept, counts are its own."""
        other = copy(self)
        other._is_thorough = True
        other.considered = 0
        return other

    def within(self, limits: Limits) -> "Search":
        """Search with other limits; evaluations are kept."""
        other = self._renewed()
        other.limits = limits
        return other

    def may_fit(self, strategy: Strategy, nodes: int) -> bool:
        """True if one of the most frugal plans of a strategy fits."""
        is_usable = strategy.name not in self.refusals and nodes >= strategy.needs_nodes
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
        faster = [wider for wider in self._wider(plan) if wider.seconds <= plan.seconds * WORTH_IT]
        return min(faster, key=lambda c: c.rank_key, default=plan)

    def _wider(self, plan: Candidate) -> Iterator[Candidate]:
        """The plan with wider windows, the narrowest first: where one has no room no wider has."""
        for windows in reversed(wider_windows(plan.strategy, self.job.model.num_params)):
            tried = (replace(plan, setting=plan.setting + window) for window in windows)
            found = next(filter(self.fits, tried), None)
            if found is None:
                return
            yield self.timed(found)

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
        other = self._renewed()
        other.batch = batch
        return other

    def _renewed(self) -> "Search":
        """Copy that takes no hint of what fitted."""
        other = copy(self)
        other._hints = defaultdict(dict)
        other._probe = other._probes()
        return other

    def smallest(self, strategy: Strategy, nodes: int) -> Iterator[Candidate]:
        """The plans of a strategy among which are those that need least of each device."""
        sizes = self._sizes(nodes)
        stated = self.job.workload.checkpointing
        for rung in self.ladders[strategy.name].frugal if sizes else ():
            every = 0 if stated is False else self._how.every
            yield self._candidate(strategy, nodes, every, rung, sizes[0])

    def can_split(self, nodes: int) -> bool:
        """True if the train batch can be split over the ranks of so many nodes."""
        return bool(self.batch.choices(self.world_size(nodes)))

    def all_fitting(self, strategy: Strategy, nodes: int) -> Iterator[Candidate]:
        """Every plan of a strategy that fits, each tried."""
        if strategy.name in self.refusals or nodes < strategy.needs_nodes:
            return
        for every in self._checkpointing:
            for rung in self.ladders[strategy.name].every:
                for size in self._sizes(nodes):
                    found = self._candidate(strategy, nodes, every, rung, size)
                    if not self.shortfalls(found):
                        yield self.timed(found)

    def _probes(self) -> Probe:
        return Probe(
            fits=self.fits,
            is_hopeless=self._is_hopeless,
            host_may_fit=self._host_may_fit,
            short=self._short,
            pace=self._pace,
            timed=self.timed,
        )

    def _prepare(self, strategy: Strategy) -> tuple[Plan | None, tuple[Finding, ...]]:
        plan, errors = plan_or_errors(job_of_strategy(self.job, strategy))
        return (None if errors else plan), errors

    def world_size(self, nodes: int) -> int:
        """GPUs of so many nodes."""
        cluster = self.job.cluster
        return cluster.world_size if nodes == cluster.nodes else nodes * cluster.gpus_per_node

    def _sizes(self, nodes: int) -> Sequence[tuple[int, int]]:
        """Micro batches worth trying, with their accumulation steps."""
        sizes = self.batch.choices(self.world_size(nodes))
        return sizes if self.knows_activations else sizes[:1]

    @property
    def _checkpointing(self) -> tuple[int, ...]:
        """Of how many blocks one is checkpointed; 0: none is."""
        stated, every = self.job.workload.checkpointing, self._how.every
        return (0, every) if stated is None else (every if stated else 0,)

    def _walks(self, strategy: Strategy, nodes: int, kinds: tuple[int, ...] = ()) -> Iterator[Walk]:
        if strategy.name in self.refusals or nodes < strategy.needs_nodes:
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
            world_size=self.world_size(nodes),
            seconds=0.0,
            tokens=0,
            uses={},
        )

    def _is_hopeless(self, candidate: Candidate) -> bool:
        """Whether it cannot fit whatever its setting and its nodes."""
        values = self._values(candidate)
        return bool(self._short_of(candidate.strategy, self._swept.unchanging(values)))

    def _host_may_fit(self, candidate: Candidate) -> bool:
        """Whether host and NVMe take a candidate, as far as is known without its batch."""
        uses = self._swept.at_least(self._values(candidate))
        return spares_host(self._short_of(candidate.strategy, uses))

    def _short(self, candidate: Candidate) -> Mapping[Device, Moment]:
        """When most is held of the devices that are short, before the batch is counted if then."""
        sweep, of, values = self._swept, candidate.strategy, self._values(candidate)
        found = self._short_of(of, sweep.at_least(values))
        if not found:
            found = self._short_of(of, sweep.without_zero(values))
            if not any(s.device is Device.GPU and s.moment in PASSES for s in found):
                found = self._short_of(of, sweep.uses(values))
        return {shortfall.device: shortfall.moment for shortfall in found}

    def fits(self, candidate: Candidate) -> bool:
        """True if a candidate fits, margin and all, and DeepSpeed does not stop in it."""
        values = self._values(candidate)
        return self._has_room(candidate.strategy, values) and not self._swept.stops(values)

    def _has_room(self, of: Strategy, values: Values) -> bool:
        sweep = self._swept
        if self._short_of(of, sweep.at_least(values)):
            return False
        if self._short_of(of, sweep.without_zero(values)):
            return False
        between = sweep.between(values)
        if between is not None:
            least, most = between
            if not self._short_of(of, most):
                return True
            if self._short_of(of, least):
                return False
        return not self._short_of(of, sweep.uses(values))

    def _short_of(self, of: Strategy, uses: Mapping[Device, Use]) -> list[Shortfall]:
        """What a candidate of a strategy is short of with such peaks."""
        return self.limits.shortfalls(uses, of.offloads, self._beside[of.name])

    @property
    def usable(self) -> list[Strategy]:
        """Strategies that DeepSpeed would run at all."""
        return [s for s in self.strategies if s.name not in self.refusals]

    def shortfalls(self, candidate: Candidate) -> list[Shortfall]:
        """Shortfalls of a candidate."""
        return self._short_of(candidate.strategy, self.uses(candidate))

    def uses(self, candidate: Candidate) -> Mapping[Device, Use]:
        """The peaks of a candidate."""
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
