"""The verdict: the least and the most that a job may need of each device, against its capacity.

It fits where the most is there, does not fit where not even the least is, and otherwise nobody can
tell; the reasons say what decides it. What can only save memory is never a ground for "does not
fit", and what can only cost never one for "fits".
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from enum import Enum

from zero_sizer.activations import select
from zero_sizer.config.workload import INFERENCE
from zero_sizer.findings import Direction, Finding, Reason, Severity
from zero_sizer.hardware.device import Device
from zero_sizer.ledger import capacity
from zero_sizer.ledger.capacity import Capacity
from zero_sizer.ledger.moments import PASSES, Moment
from zero_sizer.plan.plan import Plan
from zero_sizer.units import format_gib
from zero_sizer.util.records import dataclass

WHOSE = {Device.GPU: "each GPU", Device.HOST: "each host", Device.NVME: "the NVMe of each node"}
_CHEAPEST = {
    "assumed-seq-len": "the shortest sequence",
    "assumed-prompt": "the shortest prompt",
    "assumed-new-tokens": "a single new token",
    "assumed-checkpointing": "activation checkpointing",
    "assumed-attention": "flash attention",
    "assumed-precision": "16 bits",
    "assumed-fp32-weights": "weights in 16 bits",
}
_MEMORY = {Device.GPU: "memory of a GPU", Device.HOST: "host memory", Device.NVME: "NVMe"}


class Verdict(Enum):
    """Verdict on a job."""

    FITS = "fits"
    DOES_NOT_FIT = "does_not_fit"
    UNCERTAIN = "uncertain"


@dataclass(frozen=True, kw_only=True)
class Need:
    """Bytes that a job takes of one device, everything outside of PyTorch included.

    Attributes:
        low: bytes that must be there.
        expected: bytes as predicted, with the usual context and communication.
        high: the most that it may be; None where nobody knows a bound.
        room: of ``high``, what may be asked for in one piece (``capacity.need``).
        moment: at which ``low`` is there.
        cheapest: codes of the assumptions that ``low`` does not rest on.
    """

    low: int
    expected: int
    high: int | None
    room: int = 0
    moment: Moment | None = None
    cheapest: tuple[str, ...] = ()

    def fit(self, found: Capacity) -> capacity.Fit:
        """Against a capacity."""
        if found.num_bytes is None:
            return capacity.Fit.UNKNOWN
        if self.low > found.num_bytes:
            return capacity.Fit.NO
        is_safe = self.high is not None and self.high <= found.num_bytes
        return capacity.Fit.YES if is_safe else capacity.Fit.UNKNOWN

    def shortfall(self, found: Capacity) -> int:
        """Bytes that are missing for certain; 0 where none are."""
        return max(self.low - found.num_bytes, 0) if found.num_bytes is not None else 0


def doubts(findings: Sequence[Finding], device: Device) -> list[Finding]:
    """Findings that say how the prediction for a device may be wrong."""
    return [f for f in findings if is_doubt(f) and f.device in ("", device.value)]


def is_doubt(finding: Finding) -> bool:
    """True if a finding says that something is not counted, or counted that may not be there."""
    is_said = finding.direction is not None and not is_assumption(finding)
    return is_said or finding.code.endswith("not-modelled")


def is_assumption(finding: Finding) -> bool:
    """True if another value than the assumed one takes less: the cheapest is asked for too."""
    can_save = finding.direction in (Direction.SAVE, Direction.EITHER)
    return can_save and finding.code.startswith("assumed-")


def is_open(finding: Finding) -> bool:
    """True if a doubt stays however much room is left: nobody knows how much it costs."""
    return _direction(finding) is not Direction.SAVE and finding.num_bytes is None


def need_of(
    moments: Mapping[Moment, int], found: Capacity, room: int, about: Sequence[Finding]
) -> Need:
    """Need of one device.

    Args:
        moments: live bytes of the device at each moment.
        found: its capacity.
        room: see ``capacity.need``.
        about: its doubts.
    """
    peak = max(moments.values())
    plain = capacity.need(peak, found, room)
    less, more = _total(about, Direction.SAVE), _total(about, Direction.COST)
    # a saving with a bound is one of forward and backward (passes/remarks.py)
    elsewhere = max(size for moment, size in moments.items() if moment not in PASSES)
    least = 0 if less is None else max(peak - less, elsewhere)
    return Need(
        low=least + found.outside.low,
        expected=plain.expected,
        high=None if more is None else plain.high + more,
        room=room,
        moment=max(moments, key=lambda moment: moments[moment]),
    )


def _total(about: Sequence[Finding], direction: Direction) -> int | None:
    """The most by which all of them move the prediction; None without a bound."""
    total = 0
    for finding in about:
        if finding.direction not in (direction, Direction.EITHER, None):
            continue
        is_less = direction is Direction.SAVE and finding.less_bytes is not None
        size = finding.less_bytes if is_less else finding.num_bytes
        if size is None:
            return None
        total += size
    return total


def on_purpose(plan: Plan, device: Device) -> bool:
    """True if the config itself loads a device, so that it must be stated before anything fits."""
    if device is not Device.HOST:
        return True
    if plan.task == INFERENCE:
        return plan.param_device is not Device.GPU
    inputs = select.inputs_of(plan)
    if inputs is not None and inputs.leave:  # checkpointed inputs wait there
        return True
    return plan.optimizer_device is not Device.GPU or plan.param_device is not Device.GPU


def decide(
    plan: Plan,
    moments: Mapping[Device, Mapping[Moment, int]],
    needs: Mapping[Device, Need],
    found: Mapping[Device, Capacity],
    findings: Sequence[Finding],
) -> tuple[Verdict, tuple[Reason, ...]]:
    """The verdict and what decides it, the most telling first."""
    loaded = [d for d in Device if max(moments[d].values()) or d is Device.GPU]
    short = [d for d in loaded if needs[d].fit(found[d]) is capacity.Fit.NO]
    if short:
        reasons = [_too_small(d, needs[d], found[d], moments[d]) for d in short]
        if any(f.code == "assumed-gpus-per-node" for f in findings):  # one is what was asked about
            more = "one GPU is counted: give --gpus-per-node if there are more"
            reasons = [replace(r, remedy=more) if r.device == "gpu" else r for r in reasons]
        return Verdict.DOES_NOT_FIT, tuple(reasons)
    open_questions = [
        reason
        for device in loaded
        for reason in _undecided(plan, device, moments[device], needs[device], found, findings)
    ]
    if open_questions:
        return Verdict.UNCERTAIN, tuple(dict.fromkeys(open_questions))
    return Verdict.FITS, ()


def not_stated(
    plan: Plan,
    moments: Mapping[Device, Mapping[Moment, int]],
    found: Mapping[Device, Capacity],
) -> Iterator[Finding]:
    """Host memory that the config does not load on purpose, of a size that nobody stated."""
    peak, device = max(moments[Device.HOST].values()), Device.HOST
    if peak and found[device].num_bytes is None and not on_purpose(plan, device):
        yield Finding(
            code="host-unknown",
            severity=Severity.NOTE,
            key=capacity.FLAG[device],
            message=f"how much host memory there is was not stated: {format_gib(peak)} of each "
            "node are taken to be there",
            remedy=f"give {capacity.FLAG[device]}",
        )


def _too_small(
    device: Device, need: Need, found: Capacity, moments: Mapping[Moment, int]
) -> Reason:
    phase = need.moment.phase.value if need.moment else ""
    first = _first_short(need, found, moments)
    since = ""
    if first is not None and first.phase.value != phase:
        since = f"it is too small from {first.phase.value} on"
    *others, last = [_CHEAPEST[code] for code in need.cheapest] or [""]
    even = f"{', '.join(others)} and {last}" if others else last
    tail = f"{phase}, even with {even}" if even else phase
    return replace(too_small(device, need.shortfall(found), tail), remedy=since)


def _first_short(need: Need, found: Capacity, moments: Mapping[Moment, int]) -> Moment | None:
    """The moment at which the run ends; None where what was assumed or may be saved moves it."""
    total = max(moments.values()) + found.outside.low
    if found.num_bytes is None or need.cheapest or need.low != total:
        return None
    room = found.num_bytes - found.outside.low
    in_order = sorted(moments, key=lambda m: (m is not Moment.LOADED, list(Moment).index(m)))
    return next((m for m in in_order if moments[m] > room), None)


def too_small(device: Device, num_bytes: int, phase: str) -> Reason:
    """A device that is short of so much for certain; one wording for every command."""
    return Reason(
        device=device.value,
        code=f"{device.value}-too-small",
        direction=Direction.COST,
        message=short_of(device, num_bytes) + (f", in {phase}" if phase else ""),
    )


def short_of(device: Device, num_bytes: int) -> str:
    """A certain shortfall in words."""
    return f"{WHOSE[device]} is {format_gib(num_bytes)} short"


def _undecided(
    plan: Plan,
    device: Device,
    moments: Mapping[Moment, int],
    need: Need,
    found: Mapping[Device, Capacity],
    findings: Sequence[Finding],
) -> Iterator[Reason]:
    there, peak = found[device], max(moments.values())
    about = doubts(findings, device)
    assumed = [f for f in findings if is_assumption(f) and f.device in ("", device.value)]
    if there.num_bytes is None:
        if on_purpose(plan, device):
            yield _not_stated(device, peak)
            yield from (_of_doubt(f) for f in about if _direction(f) is not Direction.SAVE)
        return
    plain = capacity.fit(peak, there, 0)
    if need.fit(there) is capacity.Fit.YES:
        return
    if plain is capacity.Fit.NO:  # it would be too small, if not for what may save
        savings = [_of_doubt(f) for f in about if _direction(f) is not Direction.COST]
        decisive = assumed[: bool(need.cheapest)]  # else the savings tell already
        yield from (_of_assumption(f, device, moments, there) for f in decisive)
        yield from savings
        yield from map(_of_doubt, assumed[len(decisive) :])
        return
    costs = [f for f in about if _direction(f) is not Direction.SAVE]
    bounded = [f for f in costs if not is_open(f)]
    yield from (_of_doubt(f) for f in costs if is_open(f))
    if need_of(moments, there, need.room, bounded).fit(there) is not capacity.Fit.YES:
        yield from map(_of_doubt, bounded)
    without = need_of(moments, there, need.room, ())
    if without.fit(there) is not capacity.Fit.YES:
        yield _tight(device, without, there)
        if max(moments, key=lambda m: moments[m]) in PASSES:
            yield from map(_of_doubt, assumed)


def _direction(finding: Finding) -> Direction:
    return finding.direction or Direction.EITHER


def _of_doubt(finding: Finding) -> Reason:
    return Reason(
        device=finding.device,
        code=finding.code,
        direction=_direction(finding),
        message=finding.message,
        remedy=finding.remedy,
    )


def _of_assumption(
    finding: Finding, device: Device, moments: Mapping[Moment, int], there: Capacity
) -> Reason:
    """An assumption without which the job may fit, and how far from fitting it is with it."""
    moment = max(moments, key=lambda m: moments[m])
    short = moments[moment] + there.outside.low - (there.num_bytes or 0)
    message = f"{finding.message}, and so {short_of(device, short)}, in {moment.phase.value}"
    return replace(_of_doubt(finding), message=message)


def _not_stated(device: Device, peak: int) -> Reason:
    flag = capacity.FLAG[device]
    return Reason(
        device=device.value,
        code=f"{device.value}-unknown",
        direction=Direction.EITHER,
        message=f"how much {_MEMORY[device]} there is was not stated, and {format_gib(peak)} are "
        "needed of it",
        remedy=f"give {flag}" + (" or --gpu-memory" if device is Device.GPU else ""),
    )


def _tight(device: Device, need: Need, there: Capacity) -> Reason:
    most = need.low if need.high is None else need.high
    who = {
        Device.GPU: "PyTorch's allocator, CUDA and NCCL decide",
        Device.HOST: "the processes themselves and the kernel decide",
        Device.NVME: "",
    }[device]
    return Reason(
        device=device.value,
        code=f"{device.value}-tight",
        direction=Direction.COST,
        message=f"{WHOSE[device]} needs {_span(need.low, most)} of its "
        f"{format_gib(there.num_bytes or 0)}: {who}",
        remedy="`zero-sizer dryrun --how simulated` replays the allocator; "
        "PYTORCH_ALLOC_CONF=expandable_segments:True wastes less"
        if device is Device.GPU
        else "leave more room",
    )


def _span(low: int, high: int) -> str:
    first, last = format_gib(low), format_gib(high)
    unit = last.rpartition(" ")[2]
    return f"{first.removesuffix(' ' + unit)} to {last}"
