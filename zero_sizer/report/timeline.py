"""Timeline of each device over one step, block by block: as data, and as a plot of text."""

import sys
from collections.abc import Iterator
from typing import Any

from zero_sizer.answer import Answer, DeviceAnswer
from zero_sizer.ledger.moments import Phase
from zero_sizer.report.plot import Column, draw
from zero_sizer.report.table import show_line
from zero_sizer.units import format_gib
from zero_sizer.util.terminal import output_columns

_WORTH_A_PLOT = 2**20  # bytes


def as_mapping(answer: Answer) -> dict[str, Any]:
    """Device -> its points, for the JSON."""
    return {
        device.value: [
            {
                "phase": point.phase.value,
                "block": point.block,
                "place": point.place,
                "num_bytes": point.num_bytes,
            }
            for point in found.points
        ]
        for device, found in answer.devices.items()
    }


def show_timeline(answer: Answer) -> None:
    """Print one plot for each device that the job uses."""
    width = output_columns()
    for found in answer.devices.values():
        if found.points and found.peak.num_bytes >= _WORTH_A_PLOT:
            print()
            title, *drawn, peak = _plot(found.whose, found, width)
            show_line(title, indent="")
            print("\n".join(drawn))
            show_line(peak)


def _plot(name: str, found: DeviceAnswer, width: int) -> Iterator[str]:
    points = found.points
    peak = max(points, key=lambda point: point.num_bytes)
    capacity = found.capacity.num_bytes
    about = f", {format_gib(capacity)} there" if capacity is not None else ""
    yield f"{name} over one step, each block at its highest{about}:"
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
