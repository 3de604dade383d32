"""Pictures of an answer: what lives on a device over a step, and what its peak consists of.

pygal draws them. Its colours, scripts and hover boxes are taken away: the page's style sheet
colours what is left, in light and dark alike, by the classes of its groups.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from zero_sizer.answer import Answer, DeviceAnswer, LivePoint
from zero_sizer.hardware.device import Device
from zero_sizer.report.extra import missing
from zero_sizer.report.text import NAMES
from zero_sizer.units import GIB, format_gib

PARTS = 10  # colours of a composition; all smaller allocations share the last
_WORTH_A_PLOT = 2**20  # bytes
_TALLER = 4  # a capacity this many times the highest point would leave the plot flat: not drawn
_SIZES = {"narrow": (340, 240), "wide": (760, 260)}  # of a phone, of a screen or of paper
_BAR = 28  # high
_FONT = 13  # pixels, as in the style sheet
_GONE = ("defs", "title")  # its style sheet, its scripts, its name
_CAPACITY, _PEAK = "capacity", "peak"


class Key(NamedTuple):
    """One line of what the colours mean: class, words, and the size beside them."""

    kind: str
    words: str
    size: str


class Drawing(NamedTuple):
    """One picture at two widths: text keeps its size on a phone as on paper."""

    narrow: str
    wide: str


class Chart(NamedTuple):
    """Bytes that a device holds, place by place.

    Attributes:
        title: what the timeline shows.
        about: the same for those who do not see it.
        keys: of its colours.
        timeline: live bytes over a step, in GiB; None where nobody asked for its points.
        composition: allocations at the peak, the largest first, in GiB.
    """

    title: str
    about: str
    keys: tuple[Key, ...]
    timeline: Drawing | None
    composition: Drawing


def charts_of(answer: Answer) -> dict[Device, Chart]:
    """Pictures of each device that is loaded.

    Raises:
        InputError: pygal is not installed.
    """
    return {
        device: _chart(device, found)
        for device, found in answer.devices.items()
        if found.peak.num_bytes >= _WORTH_A_PLOT
    }


def _chart(device: Device, found: DeviceAnswer) -> Chart:
    parts = [live.num_bytes for live in found.live if live.num_bytes]
    composition = _drawn(lambda width, _: _composition(parts, width))
    by_block = ", block by block" if any(point.block for point in found.points) else ""
    title = f"{NAMES[device]} over one step{by_block}"
    if not found.points:
        return Chart(title, "", (), None, composition)
    point = max(found.points, key=lambda point: point.num_bytes)
    keys = (*_phases(found.points), *_marks(found, point))
    most = ", ".join(f"{key.words} {key.size}" for key in keys if key.kind not in (_PEAK,))
    return Chart(
        title=title,
        about=f"{NAMES[device]}: highest {format_gib(point.num_bytes)} in {point.phase.value}, "
        f"{point.place}; {most}",
        keys=keys,
        timeline=_drawn(lambda width, height: _timeline(found, point, width, height)),
        composition=composition,
    )


def _phases(points: Sequence[LivePoint]) -> Iterator[Key]:
    for phase, group in groupby(points, key=lambda point: point.phase):
        size = max(point.num_bytes for point in group)
        yield Key(phase.value, phase.value, format_gib(size))


def _marks(found: DeviceAnswer, point: LivePoint) -> Iterator[Key]:
    yield Key(_PEAK, "peak", format_gib(point.num_bytes))
    capacity = found.capacity.num_bytes
    if capacity is not None:
        words = "capacity" if _is_near(capacity, point) else "capacity, far above"
        yield Key(_CAPACITY, words, format_gib(capacity))


def _is_near(capacity: int | None, point: LivePoint) -> bool:
    return capacity is not None and capacity <= _TALLER * point.num_bytes


def _timeline(found: DeviceAnswer, highest: LivePoint, width: int, height: int) -> str:
    """Columns of all places, phase by phase, with the peak and the capacity over them."""
    capacity = found.capacity.num_bytes if _is_near(found.capacity.num_bytes, highest) else None
    top = max(highest.num_bytes, capacity or 0)
    chart = _library().XY(
        **_options(width, height, top * 1.06 / GIB),
        fill=True,
        show_dots=False,
        dots_size=4,
        include_x_axis=True,
        max_scale=6,
    )
    start, kinds = 0, []
    for phase, group in groupby(found.points, key=lambda point: point.phase):
        outline = []
        for index, point in enumerate(group, start):
            size = point.num_bytes / GIB
            outline += [(index, size), (index + 1, size)]
            start = index + 1
        chart.add(phase.value, outline)
        kinds.append(phase.value)
    if capacity is not None:
        size = capacity / GIB
        chart.add(_CAPACITY, [(0, size), (start, size)], fill=False)
        kinds.append(_CAPACITY)
    middle = found.points.index(highest) + 0.5
    chart.add(_PEAK, [(middle, highest.num_bytes / GIB)], stroke=False, show_dots=True)
    return _rendered(chart, [*kinds, _PEAK])


def _composition(parts: Sequence[int], width: int) -> str:
    """One bar: its allocations side by side."""
    options = _options(width, _BAR, sum(parts) / GIB)
    chart = _library().HorizontalStackedBar(**options, show_y_labels=False)
    kinds = [f"part-{min(index, PARTS - 1)}" for index in range(len(parts))]
    for kind, num_bytes in zip(kinds, parts, strict=True):
        chart.add(kind, [num_bytes / GIB])
    return _rendered(chart, kinds)


def _library() -> Any:
    """pygal, without its hook into imports, which serves maps and makes Python 3.11 warn."""
    try:
        import pygal
    except ImportError as error:
        raise missing(error) from None
    sys.meta_path[:] = [one for one in sys.meta_path if type(one).__module__ != "pygal"]
    return pygal


def _options(width: int, height: int, top: float) -> dict[str, Any]:
    """Options of both pictures; all else that pygal would add belongs to the page."""
    return {
        "width": width,
        "height": height,
        "range": (0, top),
        "margin": 4 if height > _BAR else 0,
        "style": _library().style.Style(label_font_size=_FONT, major_label_font_size=_FONT),
        "value_formatter": lambda size: f"{size:.6g} GiB",
        "show_legend": False,
        "show_x_labels": False,
        "no_prefix": True,
        "disable_xml_declaration": True,
        "js": (),
        "css": (),
        "classes": (),
    }


def _drawn(draw: Callable[[int, int], str]) -> Drawing:
    return Drawing(**{name: draw(*size) for name, size in _SIZES.items()})


def _rendered(chart: Any, kinds: Sequence[str]) -> str:
    """SVG to stand in a page.

    Args:
        chart: of pygal's.
        kinds: class of each series, in their order.
    """
    names = {f"color-{index}": kind for index, kind in enumerate(kinds)}
    chart.add_xml_filter(lambda root: _bare(root, names))
    return str(chart.render())


def _bare(root: Any, names: Mapping[str, str]) -> Any:
    """The drawing alone: no style, script, comment or hover box, and classes of the page's."""
    root.attrib.pop("id")
    for child in list(root):
        if not isinstance(child.tag, str) or child.tag in _GONE:
            root.remove(child)
    for parent in list(root.iter()):
        for child in list(parent):
            if "tooltip-overlay" in child.get("class", ""):
                parent.remove(child)
            elif child.tag == "g" and "color-" in child.get("class", ""):
                child.set("class", f"series {names[child.get('class').split()[-1]]}")
    return root
