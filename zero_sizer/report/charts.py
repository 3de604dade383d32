"""Pictures of an answer as SVG, drawn by matplotlib, in colours that follow the page."""

import io
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from zero_sizer.answer import Answer, DeviceAnswer
from zero_sizer.hardware.device import Device
from zero_sizer.ledger.moments import Phase
from zero_sizer.report.text import NAMES
from zero_sizer.units import GIB, format_gib

_INK = "#010203"  # stands for the colour of the page's text
_WORTH_A_PLOT = 2**20  # bytes
_COLOURS = {  # told apart by the colour-blind, and on white and black: Okabe and Ito 2008
    Phase.INIT: "#0072b2",
    Phase.FORWARD: "#009e73",
    Phase.BACKWARD: "#d55e00",
    Phase.STEP: "#cc79a7",
    Phase.SAVE: "#56b4e9",
    Phase.LOAD: "#e69f00",
}
_LIMIT = "#888888"
_SETTINGS: Any = {
    "svg.fonttype": "none",  # text stays text: it is read aloud, searched and scaled
    "svg.hashsalt": "zero-sizer",  # the same answer gives the same file
    "font.family": "sans-serif",
    "font.size": 9,
    "text.parse_math": False,
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK
    ),
}
_HEAD = re.compile(r"^.*?(?=<svg)", re.DOTALL)


class Chart(NamedTuple):
    """One picture.

    Attributes:
        title: what it shows.
        about: the same for those who do not see it.
        svg: markup; what a file said stands in it as text alone.
    """

    title: str
    about: str
    svg: str


def charts_of(answer: Answer) -> tuple[Chart, ...]:
    """A timeline of each device that is loaded.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib as mpl

    with mpl.rc_context(_SETTINGS):
        return tuple(_charts(answer))


def _charts(answer: Answer) -> Iterator[Chart]:
    for device, found in answer.devices.items():
        if found.points and found.peak.num_bytes >= _WORTH_A_PLOT:
            yield _timeline(device, found)


def _timeline(device: Device, found: DeviceAnswer) -> Chart:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 2.8), layout="constrained")
    axes = figure.add_subplot()
    sizes = [point.num_bytes / GIB for point in found.points]
    for phase in Phase:
        places = [i for i, point in enumerate(found.points) if point.phase is phase]
        if places:
            heights = [sizes[i] for i in places]
            axes.bar(places, heights, width=1, color=_COLOURS[phase], label=phase.value)
    peak = max(range(len(sizes)), key=sizes.__getitem__)
    axes.plot([peak], [sizes[peak]], marker="v", color=_INK, clip_on=False)
    capacity = found.capacity.num_bytes
    if capacity is not None and capacity / GIB <= 4 * max(sizes):
        axes.axhline(capacity / GIB, color=_LIMIT, linestyle="--", label="capacity")
    axes.set(ylabel="GiB", xticks=[], xlim=(-0.5, len(sizes) - 0.5), ylim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(ncols=len(Phase) + 1, frameon=False, loc="lower left", bbox_to_anchor=(0, 1))
    point = found.points[peak]
    about = (
        f"{NAMES[device]}: highest {format_gib(point.num_bytes)} in {point.phase.value}, "
        f"{point.place}; " + ", ".join(_phases(found))
    )
    title = f"{NAMES[device]} over one step, block by block"
    return Chart(title, about, _svg(figure))


def _phases(found: DeviceAnswer) -> Iterator[str]:
    for phase, size in found.phases.items():
        if size:
            yield f"{phase.value} {format_gib(size)}"


def _svg(figure: Any) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    return _HEAD.sub("", out.getvalue(), count=1).replace(_INK, "currentColor")
