"""The least disruptive changes that make a job fit, with what each costs.

Cheap changes come first (buffers, checkpointing, Liger's loss, a smaller micro batch), then a
higher stage, then offload, then more nodes; each with as few cheap changes beside it as it needs.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, islice

from zero_sizer.activations.select import closed_form_error, is_closed_form
from zero_sizer.advise import moves
from zero_sizer.advise.moves import Change, Move
from zero_sizer.advise.search import plan_of
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

_MOST_NODES = 1024
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
    if sizing.plan is None or not _needs_fix(sizing):
        return []
    found = _Search(sizing.job, sizing.plan).found(most)
    doubts = [f.message for f in sizing.findings if is_doubt(f) and is_open(f)]
    return [replace(fix, doubt=doubts[0]) for fix in found] if doubts else found


def _needs_fix(sizing: Sizing) -> bool:
    """Whether the figures themselves are too large, whatever is in doubt besides."""
    peaks = {device: peak.num_bytes for device, peak in sizing.peaks.items()}
    fits = capacity.fits(peaks, sizing.capacities, sizing.needs[Device.GPU].room)
    return any(
        fits[device] is not Fit.YES
        for device in Device
        if sizing.capacities[device].num_bytes is not None
    )


class _Search:
    """Tries moves on one job."""

    def __init__(self, job: Job, plan: Plan) -> None:
        self._job = job
        self._plan = plan
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
        if len(fixes) < most:
            fixes += self._with_nodes(enough)
        return fixes[:most]

    def _with_cheap_moves(
        self, structural: Move | None, enough: list[frozenset[str]]
    ) -> Iterator[Fix]:
        """The smallest sets of cheap moves that suffice; ``enough`` names those that already do."""
        for cheap in self._cheap_sets():
            chosen = ([structural] if structural else []) + list(cheap)
            names = frozenset(move.name for move in cheap)
            if not chosen or any(names >= smaller for smaller in enough):
                continue
            fix = self._try(chosen)
            if fix is not None:
                enough.append(names)
                yield fix

    def _cheap_sets(self) -> Iterator[Sequence[Move]]:
        plan = self._plan
        checkpointing = moves.checkpointing(plan)
        found = (moves.smaller_buckets(plan), checkpointing, moves.fused_linear_loss(plan))
        cheap = [move for move in found if move]
        yield ()
        yield from ([move] for move in cheap)
        batches = list(moves.smaller_batches(plan))
        yield from ([batch] for batch in batches)
        if checkpointing:
            yield from ([checkpointing, batch] for batch in batches)
        for count in (2, 3):
            yield from combinations(cheap, count)
        yield from ([*cheap, batch] for batch in batches)

    def _with_nodes(self, enough: list[frozenset[str]]) -> list[Fix]:
        """The fewest nodes, doubled until the job fits as it is, or checkpointed if that helps."""
        checkpointing = moves.checkpointing(self._plan)
        extras: list[list[Move]] = [[]]
        if checkpointing and frozenset({checkpointing.name}) not in enough:
            extras.append([checkpointing])
        nodes = self._job.cluster.nodes * 2
        while nodes <= _MOST_NODES:
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
    plan, errors = plan_of(job)
    if plan is None or errors:
        return None
    plan = at_highest_rank(plan)
    allocations = evaluate(entries.ENTRIES, plan, explain=False)
    moments = totals(allocations, job.cluster.gpus_per_node)
    peaks = {device: peak_of(per_moment).num_bytes for device, per_moment in moments.items()}
    known = capacity.capacities(job.cluster, job.workload)
    error = closed_form_error(plan).above if is_closed_form(plan) else 0
    return _Tried(
        plan=plan,
        peaks=peaks,
        fits=capacity.fits(peaks, known, room_of(plan, moments[Device.GPU]), error),
    )


def _seconds_per_token(plan: Plan, job: Job) -> float | None:
    time = step_time(plan, job.cluster)
    return time.seconds / (time.tokens * plan.dp_world_size) if time and time.tokens else None
