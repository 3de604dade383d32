"""Recordings of trained runs become a profile of the cluster they ran on.

Nothing here is a model: a figure is the least, the median and the most that ranks measured, and a
rate is the one with which the predicted step takes as long as the measured one.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from json import dumps
from statistics import median

from zero_sizer.dryrun import to_job
from zero_sizer.dryrun.recording import TRAINED, PhaseRecord, RankRecord, Recording, read
from zero_sizer.errors import InputError, ZeroSizerError
from zero_sizer.findings import Severity
from zero_sizer.hardware import catalog
from zero_sizer.hardware.measured import (
    ONE_GPU,
    ONE_NODE,
    SEVERAL_NODES,
    ClusterProfile,
    MeasuredBytes,
    MeasuredRate,
    MeasuredReserve,
)
from zero_sizer.sizing import size
from zero_sizer.speed.achieved import achieved
from zero_sizer.units import format_gib

_FIRST = 1  # steps from which on everything is there that a step brings
_FEWEST_STEPS = 3  # whose seconds tell of a steady state


def calibrate(paths: Sequence[str]) -> ClusterProfile:
    """The profile of the cluster that the recordings come from.

    Args:
        paths: of recordings that trained runs wrote.

    Raises:
        InputError: a file is no such recording or is given twice, or they come from different GPUs.
    """
    recordings = [(path, _read(path)) for path in paths]
    _require_different(recordings)
    gpu, gpu_name = _gpu(recordings)
    notes: list[str] = []
    ranks = [rank for _, recording in recordings for rank in recording.ranks]
    profile = ClusterProfile(
        gpu=gpu,
        gpu_name=gpu_name,
        outside=_outside(recordings),
        reserve=_reserve(ranks),
        process=_process(recordings),
        rates=_rates(recordings, gpu, notes),
        recordings=tuple(paths),
        ranks=len(ranks),
    )
    return replace(profile, notes=tuple(dict.fromkeys([*_missing(profile), *notes])))


def _read(path: str) -> Recording:
    recording = read(path)
    if recording.how != TRAINED:
        raise InputError(
            f"is of a {recording.how} dry run, which says nothing of the cluster",
            remedy="give what a Trainer's callback or loop.watch wrote",
            where=path,
        )
    for rank in recording.ranks:
        for phase in rank.phases:
            _require_possible(phase, int(recording.job.get("gpu_bytes") or 0), path)
    return recording


def _require_possible(phase: PhaseRecord, capacity: int, path: str) -> None:
    """PyTorch hands out no more than it reserves, and no GPU more than it has.

    Raises:
        InputError: a file says otherwise: every later answer would rest on it.
    """
    figures = phase.device.get("gpu", {})
    for less, more in (("allocated", "max_allocated"), ("max_allocated", "max_reserved")):
        if {less, more} <= figures.keys() and figures[less] > figures[more]:
            raise InputError(
                f"step {phase.step}, {phase.name}: gpu.{less} is {format_gib(figures[less])}, and "
                f"gpu.{more} {format_gib(figures[more])}: no run measures that",
                where=path,
            )
    if capacity and figures.get("used", 0) > capacity:
        raise InputError(
            f"step {phase.step}, {phase.name}: gpu.used is {format_gib(figures['used'])}, and its "
            f"GPU has {format_gib(capacity)}",
            where=path,
        )


def _require_different(recordings: Iterable[tuple[str, Recording]]) -> None:
    """One run counts once.

    Raises:
        InputError: two files hold the same recording.
    """
    seen: dict[str, str] = {}
    for path, recording in recordings:
        text = dumps(recording.to_json(), sort_keys=True)
        if text in seen:
            raise InputError(f"holds what {seen[text]} holds", remedy="name it once", where=path)
        seen[text] = path


def _gpu(recordings: Iterable[tuple[str, Recording]]) -> tuple[str, str]:
    """The one GPU of all of them: its name in the table, empty where it is in none, and its own.

    Raises:
        InputError: there are several.
    """
    seen: dict[str, str] = {}
    for path, recording in recordings:
        seen.setdefault(str(recording.job.get("gpu_name") or ""), path)
    if len(seen) > 1:
        told = ", ".join(f"{name or 'no GPU'} ({path})" for name, path in seen.items())
        raise InputError(
            f"the recordings come from different machines: {told}",
            remedy="calibrate each by itself",
        )
    name = next(iter(seen))
    try:
        return catalog.find(name).name if name else "", name
    except InputError:
        return "", name


def _outside(recordings: Iterable[tuple[str, Recording]]) -> dict[str, MeasuredBytes]:
    """What the driver had handed out beyond PyTorch's reserve, once communication has begun."""
    found: dict[str, list[list[int]]] = {}
    for _, recording in recordings:
        for rank in recording.ranks:
            sizes = [
                max(figures["used"] - figures["reserved"], 0)
                for phase in _steady(rank)
                if {"used", "reserved"} <= (figures := phase.device.get("gpu", {})).keys()
            ]
            if sizes:
                found.setdefault(_layout(recording), []).append(sizes)
    return {layout: _measured(sizes) for layout, sizes in found.items()}


def _layout(recording: Recording) -> str:
    if recording.world_size == 1:
        return ONE_GPU
    local = recording.job.get("local_world_size", recording.world_size)
    return ONE_NODE if local >= recording.world_size else SEVERAL_NODES


def _steady(rank: RankRecord) -> list[PhaseRecord]:
    """Phases after the first step, which loads kernels and meets its peers."""
    return [phase for phase in rank.phases if phase.step >= _FIRST]


def _measured(sizes: Sequence[Sequence[int]]) -> MeasuredBytes:
    """Of several ranks, each measured several times."""
    return MeasuredBytes(
        low=min(map(min, sizes)),
        expected=int(median(median(of_rank) for of_rank in sizes)),
        high=max(map(max, sizes)),
        ranks=len(sizes),
    )


def _reserve(ranks: Iterable[RankRecord]) -> MeasuredReserve | None:
    """The most that was reserved over the most that was allocated, rank by rank."""
    shares = []
    for rank in ranks:
        gpu = [phase.device.get("gpu", {}) for phase in rank.phases]
        allocated = max((figures.get("max_allocated", 0) for figures in gpu), default=0)
        reserved = max((figures.get("max_reserved", 0) for figures in gpu), default=0)
        if allocated and reserved:
            shares.append(max(reserved / allocated - 1, 0.0))
    if not shares:
        return None
    return MeasuredReserve(median=median(shares), most=max(shares), ranks=len(shares))


def _process(recordings: Iterable[tuple[str, Recording]]) -> MeasuredBytes | None:
    """Host memory of a process beside the tensors that lay in it, where those were listed."""
    found = []
    for _, recording in recordings:
        on_gpu = bool(recording.job.get("gpu_bytes"))
        for rank in recording.ranks:
            sizes = [
                max(phase.device["host"]["resident"] - _in_process(phase, on_gpu), 0)
                for phase in rank.phases
                if _tells_process(phase)
            ]
            if sizes:
                found.append(sizes)
    return _measured(found) if found else None


def _tells_process(phase: PhaseRecord) -> bool:
    """True if all of its tensors are known, and none is pinned: those need not be resident."""
    is_measured = "resident" in phase.device.get("host", {})
    return is_measured and bool(phase.live) and not any(b.pinned for b in phase.live)


def _in_process(phase: PhaseRecord, on_gpu: bool) -> int:
    """Bytes of tensors in the process: without a GPU those that would be on one, too."""
    return phase.num_bytes(device="host") if on_gpu else phase.num_bytes()


def _rates(
    recordings: Iterable[tuple[str, Recording]], gpu: str, notes: list[str]
) -> dict[str, MeasuredRate]:
    """Rates with which predicted steps take as long as the recorded ones."""
    if not gpu:
        return {}
    found: dict[str, list[float]] = {}
    for path, recording in recordings:
        name, value = _rate(path, recording, notes)
        if value is not None:
            found.setdefault(name, []).append(value)
    return {
        name: MeasuredRate(
            value=median(values), low=min(values), high=max(values), runs=len(values)
        )
        for name, values in found.items()
    }


def _rate(path: str, recording: Recording, notes: list[str]) -> tuple[str, float | None]:
    seconds = [_seconds(rank) for rank in recording.ranks]
    steady = [value for value in seconds if value is not None]
    if not steady:
        notes.append(f"{path}: fewer than {_FEWEST_STEPS} steps after the first: no rate")
        return "", None
    try:
        job = to_job.job_of(recording)
        sizing = size(job)
        plan = sizing.plan
    except ZeroSizerError as error:
        notes.append(f"{path}: no rate: {error.message}")
        return "", None
    if job.findings:
        notes.append(f"{path}: no rate: {job.findings[0].message}")
        return "", None
    broken = next((f for f in sizing.findings if f.severity is Severity.ERROR), None)
    if broken is not None:
        notes.append(f"{path}: no rate: {broken.key}: {broken.message}")
        return "", None
    reached = None if plan is None else achieved(plan, job.cluster, max(steady))
    if reached is None:
        notes.append(f"{path}: no rate: the step's time is not modelled")
        return "", None
    if reached.value is None:
        notes.append(
            f"{path}: steps of {max(steady):.3g} s, {reached.expected_seconds:.3g} s expected: no "
            f"{reached.name} explains that; what else does a step wait for?"
        )
    return reached.name, reached.value


def _seconds(rank: RankRecord) -> float | None:
    """The usual step of a rank: saves and evaluations among them do not move a median."""
    later = [step.seconds for step in rank.steps if step.step >= _FIRST]
    return median(later) if len(later) >= _FEWEST_STEPS else None


def _missing(profile: ClusterProfile) -> Iterator[str]:
    """What stays as published, since nothing measured it."""
    if not profile.outside:
        yield "no GPU was recorded: context, NCCL, reserve and rates stay as published"
        return
    if ONE_NODE not in profile.outside and SEVERAL_NODES not in profile.outside:
        yield "one GPU alone was recorded: NCCL stays as published"
    if not profile.gpu:
        yield "the GPU is not in the table: no rates"
