"""Pictures of an answer as figures of a page, which scale with it while their text does not.

By hand: pictures of plotting libraries shrink with the page, text and all, and are unreadable on a
phone; and none of them is light enough for the page that runs in a browser.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from math import floor, log10
from typing import NamedTuple

from zero_sizer.answer import Answer, DeviceAnswer, LivePoint
from zero_sizer.hardware.device import Device
from zero_sizer.report.text import NAMES
from zero_sizer.units import GIB, format_gib

HEIGHT = 1000  # of the drawing, in its own units
_WORTH_A_PLOT = 2**20  # bytes
_TALLER = 4  # a capacity this many times the highest point would leave the plot flat: not drawn
_ROOM = 1.08  # of the highest line, for what is written above it
_STEPS = 5  # lines across the plot at most
_NICE = (1, 2, 5, 10, 20)  # the last for what rounding makes of the one before


class Area(NamedTuple):
    """One phase: outline of its columns.

    Attributes:
        phase: its name.
        size: the most in it, as text.
        path: of SVG.
    """

    phase: str
    size: str
    path: str


class Line(NamedTuple):
    """One line across the plot: percent from above, and what stands beside it."""

    y: float
    label: str


class Chart(NamedTuple):
    """One picture.

    Attributes:
        title: what it shows.
        about: the same for those who do not see it.
        areas: of the phases, in order.
        columns: how many places there are.
        grid: lines of round sizes.
        capacity: line of what there is; None where it is not known, or far above.
        peak: percent from the left and from above of the highest point.
        size: of the highest point, as text.
    """

    title: str
    about: str
    areas: tuple[Area, ...]
    columns: int
    grid: tuple[Line, ...]
    capacity: Line | None
    peak: tuple[float, float]
    size: str


def charts_of(answer: Answer) -> tuple[Chart, ...]:
    """A timeline of each device that is loaded."""
    return tuple(
        _timeline(device, found)
        for device, found in answer.devices.items()
        if found.points and found.peak.num_bytes >= _WORTH_A_PLOT
    )


def _timeline(device: Device, found: DeviceAnswer) -> Chart:
    sizes = [point.num_bytes for point in found.points]
    where = max(range(len(sizes)), key=sizes.__getitem__)
    highest, point = sizes[where], found.points[where]
    capacity = found.capacity.num_bytes
    is_near = capacity is not None and capacity <= _TALLER * highest
    top = max(highest, capacity if capacity is not None and is_near else 0) * _ROOM
    areas = tuple(_areas(found.points, top))
    most = ", ".join(f"{area.phase} {area.size}" for area in areas)
    return Chart(
        title=f"{NAMES[device]} over one step, block by block",
        about=f"{NAMES[device]}: highest {format_gib(highest)} in {point.phase.value}, "
        f"{point.place}; {most}",
        areas=areas,
        columns=len(sizes),
        grid=tuple(_grid(top)),
        capacity=_line(capacity, top, format_gib(capacity)) if capacity and is_near else None,
        peak=(round(100 * (where + 0.5) / len(sizes), 2), _above(highest, top)),
        size=format_gib(highest),
    )


def _areas(points: Sequence[LivePoint], top: float) -> Iterator[Area]:
    start = 0
    for phase, group in groupby(points, key=lambda point: point.phase):
        sizes = [point.num_bytes for point in group]
        path = [f"M{start} {HEIGHT}"]
        for index, size in enumerate(sizes, start):
            path.append(f"V{HEIGHT - round(HEIGHT * size / top)}H{index + 1}")
        start += len(sizes)
        yield Area(phase.value, format_gib(max(sizes)), "".join([*path, f"V{HEIGHT}Z"]))


def _grid(top: float) -> Iterator[Line]:
    """Lines at multiples of a round size, a few of them."""
    least = top / GIB / _STEPS
    power = 10.0 ** floor(log10(least))
    step = next(factor * power for factor in _NICE if factor * power >= least)
    for count in range(_STEPS + 1):
        if count * step * GIB < top:
            yield _line(count * step * GIB, top, f"{count * step:g}")


def _line(size: float, top: float, label: str) -> Line:
    return Line(_above(size, top), label)


def _above(size: float, top: float) -> float:
    return round(100 * (1 - size / top), 2)
