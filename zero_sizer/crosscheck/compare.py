"""The prediction beside independent witnesses, row by row, with the relative error of each."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from zero_sizer.config.document import from_mapping
from zero_sizer.crosscheck import helpers, rules
from zero_sizer.dryrun.recording import TRAINED, PhaseRecord, RankRecord, Recording
from zero_sizer.hardware.cluster import Cluster
from zero_sizer.hardware.device import Device
from zero_sizer.job.read import Job
from zero_sizer.ledger import entries as features
from zero_sizer.ledger.entries.forward_backward import at_end_of_forward
from zero_sizer.ledger.entry import Allocation, Category, evaluate
from zero_sizer.ledger.moments import Moment
from zero_sizer.parallel import laid_out
from zero_sizer.plan.plan import Plan
from zero_sizer.sizing import Sizing, size
from zero_sizer.util.records import dataclass

# The ledger's moment that each boundary of a recording is. When backward has returned the buckets
# are gone and the norm is next; the norm's own temporaries are not there yet.
BOUNDARIES = {
    "init": Moment.READY,
    "forward": Moment.FORWARD,
    "backward": Moment.NORM,
    "step": Moment.DONE,
}
STATES = ("parameters", "master_weights", "optimizer_states", "gradients")
_NOT_TENSORS = (Category.RUNTIME,)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One quantity, predicted and witnessed.

    Attributes:
        witness: ``helpers``, ``rules``, ``launched``, ...
        device: ``gpu`` or ``host``.
        phase: phase, option line or the rule's name.
        quantity: ``live``, ``model states``, ``peak`` or a category.
        rank: rank of a recording, None where ranks do not matter.
        predicted: bytes.
        witnessed: bytes.
    """

    witness: str
    device: str
    phase: str
    quantity: str
    rank: int | None = None
    predicted: int
    witnessed: int

    @property
    def error(self) -> float | None:
        """(predicted - witnessed) / witnessed; 0 where both are 0, None where only one is."""
        if self.witnessed:
            return (self.predicted - self.witnessed) / self.witnessed
        return None if self.predicted else 0.0


@dataclass(frozen=True, kw_only=True)
class Cause:
    """The ledger entries behind one difference, and what the witness names instead.

    Attributes:
        row: the difference.
        entries: ledger entry -> bytes per rank, the largest first; of a peak, what is alive at the
            ledger's highest moment.
        seen: the witness's name for a buffer -> bytes; empty for a peak, whose parts are not
            recorded.
    """

    row: Row
    entries: Mapping[str, int]
    seen: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Crosscheck:
    """Rows of prediction and witnesses, with what explains their differences.

    Attributes:
        rows: in reading order.
        differences: for the helper's line that fits the job, why it differs from the ledger.
        causes: of a recording's largest differences.
        notes: what the reader must know about the witnesses.
    """

    rows: tuple[Row, ...]
    differences: tuple[helpers.Difference, ...] = ()
    causes: tuple[Cause, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``--format json``."""
        return {
            "schema_version": 1,
            "rows": [{**vars(row), "relative_error": row.error} for row in self.rows],
            "differences": [
                {"device": d.device.value, "num_bytes": d.num_bytes, "about": d.about}
                for d in self.differences
            ],
            "causes": [
                {**vars(c.row), "entries": dict(c.entries), "seen": dict(c.seen)}
                for c in self.causes
            ],
            "notes": list(self.notes),
        }


def against_helpers(job: Job) -> Crosscheck:
    """Every line of DeepSpeed's helpers beside the ledger on the job with that line's options.

    Raises:
        WitnessError: DeepSpeed is not installed.
    """
    sizing = size(job)
    if sizing.plan is None:
        return Crosscheck(rows=(), notes=("nothing is predicted for this job",))
    lines = helpers.for_job(sizing)
    fitting = helpers.matching(sizing.plan, lines)
    rows = [row for line in lines for row in _helper_rows(job, line, line == fitting)]
    if fitting is None:
        note = f"no line of DeepSpeed's helpers is about this job (stage {sizing.plan.stage})"
        return Crosscheck(rows=tuple(rows), notes=(note,))
    return Crosscheck(rows=tuple(rows), differences=helpers.differences(sizing, fitting))


def _helper_rows(job: Job, line: helpers.Estimate, fits: bool) -> Iterator[Row]:
    sizing = size(job if fits else helpers.variant(job, line))
    phase = f"stage {line.stage}: {line.options}" + (" (this job)" if fits else "")
    for device, witnessed in ((Device.GPU, line.gpu_bytes), (Device.HOST, line.host_bytes)):
        states = _most_states(sizing, device)
        peak = sizing.peaks[device].num_bytes
        for quantity, predicted in (("model states", states), ("peak", peak)):
            yield Row(
                witness="helpers",
                device=device.value,
                phase=phase,
                quantity=quantity,
                predicted=predicted,
                witnessed=witnessed,
            )


def _most_states(sizing: Sizing, device: Device) -> int:
    """Most bytes of model states that are alive together, per rank on the GPU, else per node."""
    ranks = 1 if device is Device.GPU else sizing.job.cluster.gpus_per_node
    states = [a for a in sizing.allocations if a.device is device and a.category.value in STATES]
    return ranks * max(sum(a.num_bytes for a in states if m in a.moments) for m in Moment)


def against_rules(job: Job) -> Crosscheck:
    """Every rule of thumb and closed form that is about this job beside the ledger, per GPU."""
    found = rules.answers(size(job))
    if not found:
        return Crosscheck(rows=(), notes=("nothing is predicted for this job",))
    return Crosscheck(
        rows=tuple(row for answer in found for row in _rule_rows(answer)),
        notes=tuple(
            f"{rule.name} ({rule.text}; {rule.source}): {rule.why}"
            for rule in (answer.rule for answer in found)
        ),
    )


def _rule_rows(answer: rules.Answer) -> Iterator[Row]:
    ends = {"at least": answer.low, "at most": answer.high}
    is_range = answer.low != answer.high
    for end, witnessed in ends.items() if is_range else [("", answer.low)]:
        yield Row(
            witness="rules",
            device="gpu",
            phase=answer.rule.name,
            quantity=f"{answer.rule.quantity} {end}".strip(),
            predicted=answer.ledger,
            witnessed=witnessed,
        )


def recorded_job(job: Job, recording: Recording) -> Job:
    """The job that a recording ran: its ranks (on one node where it does not say), its config."""
    per_node = recording.job.get("local_world_size", recording.world_size)
    ranks = laid_out(recording.world_size, per_node)
    cluster = Cluster(
        nodes=ranks.nodes,
        gpus_per_node=ranks.ranks_per_node,
        gpu=job.cluster.gpu,
        gpu_memory=job.cluster.gpu_memory,
        measured=job.cluster.measured,
        origins={"nodes": "the recording", "gpus_per_node": "the recording"},
    )
    config = recording.job.get("config")
    document = from_mapping(config, "the recording") if config is not None else job.document
    return replace(job, cluster=cluster, document=document)


def against_recording(job: Job, recording: Recording) -> Crosscheck:
    """The ledger beside a recording of the same job (see ``recorded_job``), rank by rank."""
    plan = size(job).plan
    if plan is None:
        return Crosscheck(rows=(), notes=("nothing is predicted for this job",))
    on_gpu = recording.how == TRAINED and bool(recording.job.get("gpu_bytes"))
    with_workspace = on_gpu or bool(recording.job.get("blas_bytes"))
    rows = [row for rank in recording.ranks for row in rank_rows(plan, rank, recording.how)]
    for rank in recording.ranks if on_gpu else ():
        rows += allocated_rows(plan, rank, recording.how)
    for rank in recording.ranks:
        rows += peak_rows(plan, rank, recording.how, with_workspace=with_workspace)
    return Crosscheck(rows=tuple(rows), notes=recording.notes)


def rank_rows(plan: Plan, rank: RankRecord, how: str) -> Iterator[Row]:
    """One rank's boundaries in the steady state beside the ledger evaluated for that rank."""
    for name in BOUNDARIES:
        phase = rank.last_listed(name)
        left = left_by(plan, rank.rank, name) if phase is not None and phase.live else []
        for device in (Device.GPU, Device.HOST) if left else ():
            live = [a for a in left if a.device is device]
            for quantity, predicted, witnessed in _quantities(live, phase, device.value):
                yield Row(
                    witness=how,
                    device=device.value,
                    phase=name,
                    quantity=quantity,
                    rank=rank.rank,
                    predicted=predicted,
                    witnessed=witnessed,
                )


def allocated_rows(plan: Plan, rank: RankRecord, how: str) -> Iterator[Row]:
    """Bytes that PyTorch had handed out at one rank's last boundaries, workspaces included.

    Forward is left out: the ledger has its highest moment, which is not its end.
    """
    allocations = tensors_of(plan, rank.rank, with_workspace=True)
    for name in BOUNDARIES:
        phase = rank.last(name)
        if phase is not None and name != "forward" and "allocated" in phase.device.get("gpu", {}):
            yield Row(
                witness=how,
                device="gpu",
                phase=name,
                quantity="allocated",
                rank=rank.rank,
                predicted=sum(
                    a.num_bytes for a in allocations if a.device is Device.GPU and is_live(a, name)
                ),
                witnessed=phase.device["gpu"]["allocated"],
            )


def left_by(plan: Plan, rank: int, phase: str) -> list[Allocation]:
    """The ledger of one rank when a phase has ended: of forward not at its highest."""
    left = [a for a in tensors_of(plan, rank) if is_live(a, phase)]
    if phase != "forward":
        return left
    ends = at_end_of_forward(replace(plan, rank=rank))
    return [replace(a, num_bytes=ends.get(a.name, a.num_bytes)) for a in left]


def is_live(allocation: Allocation, phase: str) -> bool:
    """True if an allocation is there when a phase has ended.

    After backward that is what the step finds, or lets go and brings back as stage 3 does with
    persistent parameters. What the end of a step makes for a moment (weights that are gathered
    anew) is gone by then.
    """
    moments = allocation.moments
    if phase in ("backward", "step") and allocation.category is Category.TEMPORARY:
        return False
    if phase != "backward":
        return BOUNDARIES[phase] in moments
    returns = Moment.BACKWARD in moments and Moment.DONE in moments
    return returns or Moment.NORM in moments


def peak_rows(
    plan: Plan, rank: RankRecord, how: str, *, with_workspace: bool = False
) -> Iterator[Row]:
    """One rank's peak of each phase beside the ledger's highest moment of that phase.

    A step is an optimizer step: between micro batches ``engine.step()`` does nothing, and what lies
    there (stage 1's buckets, which are let go before the optimizer steps) is counted in the
    passes around it. A simulated run counts pinned buffers as rounded by their allocator, real
    ranks as tensors.

    Args:
        plan: the job.
        rank: the rank's record.
        how: of the recording.
        with_workspace: the recording counts the workspaces of cuBLAS.
    """
    allocations = tensors_of(plan, rank.rank, with_workspace=with_workspace)
    rounds = how == "simulated"
    ends = {phase.step: phase.micro_step for phase in rank.phases if phase.name == "step"}
    for name in BOUNDARIES:
        last = ends if name == "step" else {}
        moments = [m for m in Moment if m.phase.value == name]
        for device in (Device.GPU, Device.HOST):
            seen = [
                phase.device.get(device.value, {}).get("max_allocated")
                for phase in rank.phases
                if phase.name == name and phase.micro_step >= last.get(phase.step, 0)
            ]
            most = [figure for figure in seen if figure is not None]
            here = [a for a in allocations if a.device is device]
            if most:
                yield Row(
                    witness=how,
                    device=device.value,
                    phase=name,
                    quantity="peak",
                    rank=rank.rank,
                    predicted=max(
                        sum(a.num_bytes + rounds * a.rounding_bytes for a in here if m in a.moments)
                        for m in moments
                    ),
                    witnessed=max(most),
                )


def tensors_of(plan: Plan, rank: int, *, with_workspace: bool = False) -> list[Allocation]:
    """The ledger of one rank without what is no tensor, unless it is asked for."""
    ledger = evaluate(features.ENTRIES, replace(plan, rank=rank), explain=False)
    return [a for a in ledger if with_workspace or a.category not in _NOT_TENSORS]


def _quantities(
    live: Iterable[Allocation], phase: PhaseRecord | None, device: str
) -> Iterator[tuple[str, int, int]]:
    if phase is None:
        return
    predicted = _by_category(live)
    witnessed = {
        category: phase.num_bytes(category, device)
        for category in dict.fromkeys(buffer.category for buffer in phase.live)
    }
    yield "live", sum(predicted.values()), phase.num_bytes(device=device)
    yield "model states", _states(predicted), _states(witnessed)
    for category in dict.fromkeys((*predicted, *witnessed)):
        if predicted.get(category) or witnessed.get(category):
            yield category, predicted.get(category, 0), witnessed.get(category, 0)


def _by_category(allocations: Iterable[Allocation]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for allocation in allocations:
        name = allocation.category.value
        sums[name] = sums.get(name, 0) + allocation.num_bytes
    return sums


def _states(by_category: Mapping[str, int]) -> int:
    return sum(by_category.get(name, 0) for name in STATES)


def worst_ranks(rows: Iterable[Row]) -> list[Row]:
    """For each quantity the rank whose prediction is furthest off, in reading order."""
    worst: dict[tuple[str, str, str, str], Row] = {}
    for row in rows:
        key = (row.witness, row.device, row.phase, row.quantity)
        if key not in worst or _distance(row) > _distance(worst[key]):
            worst[key] = row
    return list(worst.values())


def _distance(row: Row) -> int:
    return abs(row.predicted - row.witnessed)
