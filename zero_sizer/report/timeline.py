"""What lives on each device over one step, block by block: as data, and as a plot of text."""

import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from zero_sizer.hardware.device import Device
from zero_sizer.ledger.moments import STEPPING, Moment, Phase
from zero_sizer.report.plot import Column, draw
from zero_sizer.sizing import Sizing
from zero_sizer.timeline import compose
from zero_sizer.units import format_gib
from zero_sizer.util.terminal import output_columns

_NAME = {Device.GPU: "each GPU", Device.HOST: "each host", Device.NVME: "NVMe of each node"}
_WORTH_A_PLOT = 2**20  # bytes


class LivePoint(NamedTuple):
    """Live bytes at one place of the step, per rank on the GPU and per node elsewhere.

    Attributes:
        block: qualified name of the block whose highest point it is; empty outside of blocks.
        place: what is running.
    """

    phase: Phase
    block: str
    place: str
    num_bytes: int


def live_points(sizing: Sizing, device: Device) -> list[LivePoint]:
    """The phases in order; their highest is the device's peak."""
    if sizing.plan is None:
        return []
    moments = sizing.moments[device]
    found: list[LivePoint] = []
    for moment in Moment:
        if moment.phase not in STEPPING and moment.phase is not sizing.peaks[device].moment.phase:
            continue  # saving and loading only where they decide
        if device is Device.GPU and moment in (Moment.FORWARD, Moment.BACKWARD):
            found += _pass(sizing, moment)
        else:
            found.append(LivePoint(moment.phase, "", moment.value, moments[moment]))
    return found


def _pass(sizing: Sizing, moment: Moment) -> Iterator[LivePoint]:
    plan = sizing.plan
    if plan is None:
        return
    is_backward = moment is Moment.BACKWARD
    highest = (
        compose.timeline_of(plan).backward if is_backward else compose.timeline_of(plan).forward
    )
    persistent = sizing.moments[Device.GPU][moment] - highest.total
    for peak in compose.block_peaks_of(plan):
        if peak.is_backward is is_backward:
            size = persistent + peak.instant.total
            yield LivePoint(moment.phase, peak.block, peak.instant.place, size)


def as_mapping(sizing: Sizing) -> dict[str, Any]:
    """Device -> its points, for the JSON."""
    return {
        device.value: [
            {
                "phase": point.phase.value,
                "block": point.block,
                "place": point.place,
                "num_bytes": point.num_bytes,
            }
            for point in live_points(sizing, device)
        ]
        for device in Device
    }


def show_timeline(sizing: Sizing) -> None:
    """Print one plot for each device that the job uses."""
    width = output_columns()
    for device in Device:
        points = live_points(sizing, device)
        if points and sizing.peaks[device].num_bytes >= _WORTH_A_PLOT:
            print()
            print("\n".join(_plot(sizing, device, points, width)))


def _plot(sizing: Sizing, device: Device, points: Sequence[LivePoint], width: int) -> Iterator[str]:
    peak = max(points, key=lambda point: point.num_bytes)
    capacity = sizing.capacities[device].num_bytes
    about = f", {format_gib(capacity)} there" if capacity is not None else ""
    yield f"{_NAME[device]} over one step, each block at its highest{about}:"
    groups = [
        (
            phase.value,
            [Column(p.num_bytes, p is peak) for p in points if p.phase is phase],
        )
        for phase in Phase
        if any(p.phase is phase for p in points)
    ]
    yield from draw(groups, width=width, limit=capacity, label=format_gib, plain=_is_plain())
    yield f"peak {format_gib(peak.num_bytes)} in {peak.phase.value}: {peak.place}"


def _is_plain() -> bool:
    """Whether the output cannot show block characters."""
    try:
        "█▁╌▼".encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return True
    return False
