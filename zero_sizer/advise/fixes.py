"""The least disruptive changes that make a job fit, with what each costs.

Cheap changes come first (buffers, pinning, sub-groups, checkpointing, Liger's loss, a smaller micro
batch), then a higher stage, then offload, then more nodes; each with as few cheap changes beside it
as it needs. Where none of these sets does, the search of ``choose`` is asked for its plans at the
same train batch. Many more nodes only after an adapter, which is another job.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations, islice

from zero_sizer.activations.select import error_above
from zero_sizer.advise import moves
from zero_sizer.advise.alternatives import alternatives
from zero_sizer.advise.left_open import is_left_to_data
from zero_sizer.advise.moves import Change, Move
from zero_sizer.advise.planned import plan_or_errors
from zero_sizer.advise.searched import searched
from zero_sizer.hardware.device import Device
from zero_sizer.job.read import Job
from zero_sizer.ledger import capacity, entries
from zero_sizer.ledger.capacity import Fit
from zero_sizer.ledger.entry import evaluate
from zero_sizer.ledger.peak import peak_of, totals
from zero_sizer.ledger.ranks import at_highest_rank
from zero_sizer.ledger.requests import room_of
from zero_sizer.ledger.verdict import is_doubt, is_open
from zero_sizer.plan.plan import Plan
from zero_sizer.sizing import Sizing
from zero_sizer.speed import step_time
from zero_sizer.util.records import dataclass

_MOST_NODES = 1024
_FEW_TIMES = 8  # the nodes there are: more than that is not a change of this job
_WORK = 40_000  # tensors in all jobs tried together: the deepest model in use has 1,200


@dataclass(frozen=True, kw_only=True)
class Fix:
    """Changes after which the job fits.

    Attributes:
        name: short name.
        changes: what to change.
        peaks: new peak per device in bytes; per rank on the GPU, per node elsewhere.
        slowdown: predicted seconds per token over the job's own; None when no GPU was named.
        unknown: devices of which the job now uses more, and nobody said how much there is.
        doubt: what of its memory is not known, in words; empty where it fits for certain.
    """

    name: str
    changes: tuple[Change, ...]
    peaks: Mapping[Device, int]
    slowdown: float | None
    unknown: tuple[Device, ...] = ()
    doubt: str = ""


@dataclass(frozen=True)
class _Tried:
    """A job after some moves."""

    plan: Plan
    peaks: Mapping[Device, int]
    fits: Mapping[Device, Fit]


def fixes(sizing: Sizing, most: int = 5) -> list[Fix]:
    """At most ``most`` ways to make a job fit that does not; empty for one that does.

    A fix fits for certain (the most that others take of a GPU is counted), on devices whose size
    is known and but for its ``doubt``.
    """
    if sizing.plan is None or not _needs_fix(sizing) or is_left_to_data(sizing):
        return []
    found = _Search(sizing.job, sizing.plan, _short(sizing)).found(most)
    doubts = [f.message for f in sizing.findings if is_doubt(f) and is_open(f)]
    return [replace(fix, doubt=doubts[0]) for fix in found] if doubts else found


def _needs_fix(sizing: Sizing) -> bool:
    return any(_short(sizing).values())


def _short(sizing: Sizing) -> dict[Device, bool]:
    """Whether each device, where its size is known, may be too small."""
    return {
        device: sizing.capacities[device].num_bytes is not None
        and bool(sizing.peaks[device].num_bytes)
        and sizing.needs[device].fit(sizing.capacities[device]) is not Fit.YES
        for device in Device
    }


def _sets(cheap: Sequence[Move], batches: Sequence[Move]) -> Iterator[Sequence[Move]]:
    """Sets of cheap moves, the least disruptive first."""
    checkpointing = [move for move in cheap if move.name == "checkpointing"]
    yield ()
    yield from ([move] for move in cheap)
    yield from ([batch] for batch in batches)
    for move in checkpointing:
        yield from ([move, batch] for batch in batches)
    for count in (2, 3):
        yield from combinations(cheap, count)
    yield from ([*cheap, batch] for batch in batches)
    yield cheap


class _Search:
    """Tries moves on one job."""

    def __init__(self, job: Job, plan: Plan, short: Mapping[Device, bool]) -> None:
        self._job = job
        self._plan = plan
        self._short = short
        self._before = _seconds_per_token(plan, job)
        self._left = _WORK

    def found(self, most: int) -> list[Fix]:
        enough: list[frozenset[str]] = []
        fixes = list(self._with_cheap_moves(None, enough))
        has_nvme = self._job.cluster.nvme is not None
        for structural in moves.strategies(self._plan, has_nvme=has_nvme):
            if len(fixes) >= most:
                break
            fixes += islice(self._with_cheap_moves(structural, list(enough)), 1)
        if not fixes:
            tried = (self._try([move]) for move in searched(self._job, self._plan))
            fixes += islice((fix for fix in tried if fix is not None), 2)
        few, many = _FEW_TIMES * self._job.cluster.nodes, _MOST_NODES
        if len(fixes) < most:
            fixes += self._with_nodes(enough, self._job.cluster.nodes * 2, few)
        if not fixes:
            fixes += self._with_adapter()
            fixes += self._with_nodes(enough, 2 * few, many)
        return fixes[:most]

    def _with_adapter(self) -> list[Fix]:
        """An adapter alone, else checkpointed, else with the smallest micro batch too."""
        checkpointing = moves.checkpointing(self._plan)
        recompute = [checkpointing] if checkpointing else []
        least = list(moves.smaller_batches(self._plan))[-1:]
        found: list[Fix] = []
        for other in alternatives(self._job):
            sets = ([], recompute, [*recompute, *least]) if not other.trains_the_same else ()
            tried = (self._try([moves.adapter(other), *extra]) for extra in sets)
            found += islice((fix for fix in tried if fix is not None), 1)
        return found

    def _with_cheap_moves(
        self, structural: Move | None, enough: list[frozenset[str]]
    ) -> Iterator[Fix]:
        """The smallest sets of cheap moves that suffice; ``enough`` names those that already do."""
        cheap, batches = self._cheap(structural)
        if not self._may_suffice(structural, cheap, batches):
            return
        for chosen in _sets(cheap, batches):
            names = frozenset(move.name for move in chosen)
            tried = ([structural] if structural else []) + list(chosen)
            if not tried or any(names >= smaller for smaller in enough):
                continue
            fix = self._try(tried)
            if fix is not None:
                enough.append(names)
                yield fix

    def _may_suffice(
        self, structural: Move | None, cheap: Sequence[Move], batches: Sequence[Move]
    ) -> bool:
        """Whether all of them together do, with the smallest batch: none does without them else."""
        kept = [move for move in cheap if not move.is_trade]
        trades = [move for move in cheap if move.is_trade]
        whole = ([structural] if structural else []) + kept + list(batches[-1:])
        sets = [whole, *([*whole, trade] for trade in trades)]
        return any(self._try(every) is not None for every in sets if every)

    def _cheap(self, structural: Move | None) -> tuple[list[Move], list[Move]]:
        """Cheap moves for the devices that are short, and smaller batches."""
        plan = self._plan
        if structural is not None:
            planned, errors = plan_or_errors(structural.apply(self._job))
            plan = plan if planned is None or errors else planned
        found: list[Move | None] = []
        if structural is not None or self._is_short(Device.HOST, Device.NVME):
            found += [moves.smaller_sub_groups(plan), moves.unpinned(plan)]
            found.append(moves.partial_offload(plan))
        is_gpu_short = structural is not None or self._is_short(Device.GPU)
        if is_gpu_short:
            found += [moves.smaller_buckets(plan), moves.without_prefetch(plan)]
            found += [moves.bucket_for_largest(plan), moves.checkpointing(plan)]
            found.append(moves.fused_linear_loss(plan))
        batches = list(moves.smaller_batches(plan)) if is_gpu_short else []
        return [move for move in found if move], batches

    def _is_short(self, *devices: Device) -> bool:
        return any(self._short.get(device, False) for device in devices)

    def _with_nodes(self, enough: list[frozenset[str]], nodes: int, most: int) -> list[Fix]:
        """The fewest nodes from so many on, doubled until the job fits; as it is, or frugally."""
        checkpointing = moves.checkpointing(self._plan)
        extras: list[list[Move]] = [[]]
        if checkpointing and frozenset({checkpointing.name}) not in enough:
            extras.append([checkpointing])
        if self._plan.stage < 3 and not enough:
            third = moves.keys("ZeRO-3", {"zero_optimization.stage": 3})
            batches = list(moves.smaller_batches(self._plan))
            extras.append([third, *([checkpointing] if checkpointing else []), *batches[-1:]])
        while nodes <= most:
            for extra in extras:
                fix = self._try([moves.more_nodes(self._job, nodes), *extra])
                if fix:
                    return [fix]
            nodes *= 2
        return []

    def _try(self, chosen: Sequence[Move]) -> Fix | None:
        job = self._job
        self._left -= len(job.model.parameters)
        if self._left < 0:
            return None
        for move in chosen:
            job = move.apply(job)
        tried = _size(job)
        if tried is None or not self._is_fit(tried):
            return None
        after = _seconds_per_token(tried.plan, job)
        return Fix(
            name=" and ".join(move.name for move in chosen),
            changes=tuple(change for move in chosen for change in move.changes),
            peaks=tried.peaks,
            slowdown=after / self._before if after and self._before else None,
            unknown=_unknown(tried),
        )

    def _is_fit(self, tried: _Tried) -> bool:
        known = capacity.capacities(self._job.cluster, self._job.workload)
        return all(
            tried.fits[device] is Fit.YES
            for device in Device
            if known[device].num_bytes is not None
        )


def _unknown(tried: _Tried) -> tuple[Device, ...]:
    return tuple(
        device
        for device in (Device.HOST, Device.NVME)
        if tried.fits[device] is Fit.UNKNOWN and tried.peaks[device]
    )


def _size(job: Job) -> _Tried | None:
    """Peaks of a job; None when DeepSpeed would refuse it."""
    plan, errors = plan_or_errors(job)
    if plan is None or errors:
        return None
    plan = at_highest_rank(plan)
    allocations = evaluate(entries.ENTRIES, plan, explain=False)
    moments = totals(allocations, job.cluster.gpus_per_node)
    peaks = {device: peak_of(per_moment).num_bytes for device, per_moment in moments.items()}
    known = capacity.capacities(job.cluster, job.workload)
    error = error_above(plan)
    return _Tried(
        plan=plan,
        peaks=peaks,
        fits=capacity.fits(peaks, known, room_of(plan, moments[Device.GPU]), error),
    )


def _seconds_per_token(plan: Plan, job: Job) -> float | None:
    time = step_time(plan, job.cluster)
    return time.seconds / (time.tokens * plan.dp_world_size) if time and time.tokens else None
