"""The finished answer of ``check``: all that a report shows, so that reporters compute nothing."""

from collections.abc import Iterator, Mapping
from dataclasses import field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from zero_sizer import speed
from zero_sizer.config.workload import INFERENCE
from zero_sizer.hardware.device import Device
from zero_sizer.ledger.capacity import Capacity, reserved
from zero_sizer.ledger.entry import Allocation
from zero_sizer.ledger.moments import GENERATING, RUNS, STEPPING, Moment, Phase
from zero_sizer.ledger.peak import Peak, phase_peaks
from zero_sizer.ledger.ranks import OnRank, candidates
from zero_sizer.ledger.verdict import WHOSE, Need, Verdict
from zero_sizer.sizing import Sizing
from zero_sizer.timeline import compose
from zero_sizer.util.interval import Interval
from zero_sizer.util.records import dataclass

if TYPE_CHECKING:  # importing them costs a part of a cold start, and most jobs need none
    from zero_sizer.advise.fit_map import FitMap
    from zero_sizer.advise.fixes import Fix
    from zero_sizer.job.goal import Goal
    from zero_sizer.speed.training import Training


class Live(NamedTuple):
    """One allocation of those that are live at a device's peak.

    Attributes:
        allocation: its declaration and numbers.
        num_bytes: on the device, of all ranks of a node off the GPU.
    """

    allocation: Allocation
    num_bytes: int


class LivePoint(NamedTuple):
    """Live bytes at one place of the step, per rank on the GPU and per node elsewhere.

    Attributes:
        phase: phase of the place.
        block: qualified name of the block whose highest point it is; empty outside of blocks.
        place: what is running.
        num_bytes: live there.
    """

    phase: Phase
    block: str
    place: str
    num_bytes: int


@dataclass(frozen=True, kw_only=True)
class DeviceAnswer:
    """Needs of the job on one device: per rank on the GPU, per node elsewhere.

    Attributes:
        whose: the device in words, with its rank where GPUs differ.
        peak: the highest instant.
        place: what is running then.
        phases: the most in each phase, of the rank that ``whose`` names.
        higher: phases in which another rank's GPU holds more -> the most.
        reserved: PyTorch's reserve at the peak.
        capacity: what there is, and what others take of it.
        need: the least, the expected and the most, with everything else.
        shortfall: bytes that are missing for certain.
        live: allocations at the peak, the largest first.
        points: live bytes place by place; empty unless asked for.
    """

    whose: str
    peak: Peak
    place: str
    phases: Mapping[Phase, int]
    reserved: Interval
    capacity: Capacity
    need: Need
    shortfall: int
    live: tuple[Live, ...]
    points: tuple[LivePoint, ...] = ()
    higher: Mapping[Phase, OnRank] = field(default_factory=dict)

    @property
    def is_used(self) -> bool:
        """True if the job loads the device at all."""
        return bool(self.peak.num_bytes)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A sizing with what follows from it.

    Attributes:
        sizing: job, plan, findings, verdict and reasons.
        devices: what it takes of each.
        speed: the ``speed`` block of the JSON; None for what cannot run, or where nobody can say.
        training: the whole run; None for what cannot run, or where nobody says how much it is.
        fit_map: verdicts by micro batch and nodes; None unless asked for.
    """

    sizing: Sizing
    devices: Mapping[Device, DeviceAnswer]
    speed: Mapping[str, Any] | None
    training: "Training | None" = None
    fit_map: "FitMap | None" = None

    @cached_property
    def fixes(self) -> "tuple[Fix, ...]":
        """Changes that would make it fit; looked for only where it does not, or may not.

        Seconds of work, which a sweep that shows none is spared.
        """
        trains = self.sizing.job.workload.task != INFERENCE
        return _fixes(self.sizing) if trains and self.sizing.verdict is not Verdict.FITS else ()


def answer_of(sizing: Sizing, *, points: bool = False, goal: "Goal | None" = None) -> Answer:
    """The answer of a sized job.

    Args:
        sizing: the job's figures.
        points: also what lives at each place of the step.
        goal: the training run to time and price.
    """
    trains = sizing.job.workload.task != INFERENCE
    can_run = trains and sizing.verdict is not Verdict.DOES_NOT_FIT and sizing.is_valid
    return Answer(
        sizing=sizing,
        devices={device: _device(sizing, device, points) for device in Device},
        speed=speed.estimate(sizing) if can_run else None,
        training=None if goal is None else _training(sizing, goal),
    )


def _training(sizing: Sizing, goal: "Goal") -> "Training | None":
    from zero_sizer.speed.training import of_sizing

    return of_sizing(sizing, goal)


def _fixes(sizing: Sizing) -> "tuple[Fix, ...]":
    from zero_sizer.advise.fixes import fixes

    return tuple(fixes(sizing))


def _device(sizing: Sizing, device: Device, points: bool) -> DeviceAnswer:
    peak, found, need = sizing.peaks[device], sizing.capacities[device], sizing.needs[device]
    return DeviceAnswer(
        whose=_whose(sizing, device),
        peak=peak,
        place=_place(sizing, peak),
        phases=phase_peaks(sizing.moments[device], phases_of(sizing)),
        reserved=reserved(peak.num_bytes, found, need.room),
        capacity=found,
        need=need,
        shortfall=sizing.shortfall(device) if peak.num_bytes else 0,
        live=_live(sizing, device, peak.moment),
        points=tuple(_points(sizing, device)) if points else (),
        higher=sizing.higher if device is Device.GPU else {},
    )


def phases_of(sizing: Sizing) -> tuple[Phase, ...]:
    """The phases of the job's task, in order."""
    if sizing.job.workload.task == INFERENCE:
        return (*GENERATING, Phase.LOAD)
    return (*STEPPING, Phase.SAVE, Phase.LOAD)


def _whose(sizing: Sizing, device: Device) -> str:
    """The device that is meant; GPUs of some plans differ by rank."""
    if sizing.job.workload.task == INFERENCE:
        return WHOSE[device]
    if device is Device.GPU and sizing.plan and len(candidates(sizing.plan)) > 1:
        return f"the GPU of rank {sizing.plan.rank}, which holds most,"
    return WHOSE[device]


def _place(sizing: Sizing, peak: Peak) -> str:
    if sizing.plan and peak.moment in RUNS:
        from zero_sizer.timeline import generating

        is_prefill = peak.moment is Moment.PREFILL
        found = generating.of_prefill if is_prefill else generating.of_decode
        return found(sizing.plan).place
    if sizing.plan and peak.moment is Moment.FORWARD:
        return compose.timeline_of(sizing.plan).forward.place
    if sizing.plan and peak.moment is Moment.BACKWARD:
        return compose.timeline_of(sizing.plan).backward.place
    return peak.moment.value


def _live(sizing: Sizing, device: Device, moment: Moment) -> tuple[Live, ...]:
    ranks = sizing.job.cluster.gpus_per_node
    found = [
        Live(allocation, allocation.on_device(ranks))
        for allocation in sizing.allocations
        if allocation.device is device and moment in allocation.moments
    ]
    return tuple(sorted(found, key=lambda live: -live.num_bytes))


_RARE = (Phase.SAVE, Phase.LOAD)


def _points(sizing: Sizing, device: Device) -> Iterator[LivePoint]:
    """The phases in order; their highest is the device's peak."""
    if sizing.plan is None:
        return
    moments, phases = sizing.moments[device], phases_of(sizing)
    for moment in Moment:
        if moment.phase not in phases:
            continue
        if moment.phase in _RARE and moment.phase is not sizing.peaks[device].moment.phase:
            continue  # saving and loading only where they decide
        if device is Device.GPU and moment in (Moment.FORWARD, Moment.BACKWARD):
            yield from _pass(sizing, moment)
        else:
            yield LivePoint(moment.phase, "", moment.value, moments[moment])


def _pass(sizing: Sizing, moment: Moment) -> Iterator[LivePoint]:
    if sizing.plan is None:
        return
    is_backward, timeline = moment is Moment.BACKWARD, compose.timeline_of(sizing.plan)
    highest = timeline.backward if is_backward else timeline.forward
    persistent = sizing.moments[Device.GPU][moment] - highest.total
    for peak in compose.block_peaks_of(sizing.plan):
        if peak.is_backward is is_backward:
            size = persistent + peak.instant.total
            yield LivePoint(moment.phase, peak.block, peak.instant.place, size)
