"""An answer laid out in sections, for whatever markup prints them; that of ``check`` first."""

from collections.abc import Iterator

from zero_sizer.answer import Answer, DeviceAnswer
from zero_sizer.hardware.device import Device
from zero_sizer.ledger.verdict import Verdict
from zero_sizer.report.fixes import fix_rows
from zero_sizer.report.text import (
    NAMES,
    finding_line,
    keys_of,
    other_ranks,
    phases_shown,
    speed_line,
)
from zero_sizer.report.training import lines as training_lines
from zero_sizer.report.verdict import free, job_words, reason_line, told
from zero_sizer.units import format_gib
from zero_sizer.util.records import dataclass
from zero_sizer.util.terminal import one_line

_WORTH_A_TABLE = 2**20  # bytes: below, a device's composition is not listed


@dataclass(frozen=True, kw_only=True)
class Section:
    """One part of the answer: sentences, and a table under them.

    Attributes:
        title: of the part.
        name: by which a program finds it; empty where none looks.
        lines: sentences before the table.
        heads: of the columns; empty where there is no table.
        rows: cells as text.
        numbers: columns that hold figures.
        has_parts: rows are parts of a whole, the largest first.
        is_list: the sentences are items of a list.
        code: a file, as text.
    """

    title: str
    name: str = ""
    lines: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    numbers: tuple[int, ...] = ()
    has_parts: bool = False
    is_list: bool = False
    code: str = ""


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """The whole answer.

    Attributes:
        verdict: in the words of the terminal, such as ``DOES NOT FIT``.
        kind: of verdict, for a colour.
        reasons: what decides it, or what stays free.
        job: in one breath.
        sections: in order.
    """

    verdict: str
    kind: Verdict
    reasons: tuple[str, ...]
    job: str
    sections: tuple[Section, ...]


def sheet_of(answer: Answer) -> Sheet:
    """Lays an answer out."""
    sizing = answer.sizing
    fits = sizing.verdict is Verdict.FITS
    reasons = (free(sizing),) if fits else tuple(map(reason_line, sizing.reasons))
    return Sheet(
        verdict=told(sizing),
        kind=sizing.verdict,
        reasons=tuple(reason for reason in reasons if reason),
        job=", ".join(job_words(sizing.job, sizing.plan)),
        sections=tuple(_sections(answer)),
    )


def peak_name(device: Device) -> str:
    """Name of the section about a device's peak."""
    return f"peak-{device.value}"


def _sections(answer: Answer) -> Iterator[Section]:
    sizing = answer.sizing
    if sizing.plan is not None:
        yield _devices(answer)
        for device, found in answer.devices.items():
            if found.peak.num_bytes >= _WORTH_A_TABLE:
                yield _composition(answer, device, found)
        if answer.speed is not None:
            yield Section(title="Speed", lines=(speed_line(answer.speed),))
        if answer.training is not None:
            yield Section(title="Training run", lines=tuple(training_lines(answer.training)))
        if answer.fixes:
            may = "may" if answer.fixes[0].doubt else "would"
            yield Section(
                title=f"What {may} make it fit",
                name="fixes",
                lines=(answer.fixes[0].doubt,) if answer.fixes[0].doubt else (),
                heads=("new peak", "time a token", "change"),
                rows=tuple(fix_rows(answer.fixes)),
            )
    if sizing.findings:
        yield Section(title="Findings", lines=tuple(_findings(answer)), is_list=True)


def _devices(answer: Answer) -> Section:
    shown = phases_shown(answer)
    heads = ("", *(phase.value for phase in shown), "peak", "low", "high", "capacity")
    rows = [
        (
            NAMES[device],
            *(_size(found.phases[phase]) for phase in shown),
            _size(found.peak.num_bytes),
            _size(found.need.low),
            "no bound" if found.need.high is None else _size(found.need.high),
            "not stated" if found.capacity.num_bytes is None else _size(found.capacity.num_bytes),
        )
        for device, found in answer.devices.items()
        if found.is_used or device is Device.GPU
    ]
    return Section(
        title="Memory",
        lines=(
            "Each GPU's, each node's off the GPU. Low and high count what others take of the "
            "device, such as the CUDA context and the processes themselves.",
            *filter(None, [other_ranks(answer, shown)]),
        ),
        heads=heads,
        rows=tuple(rows),
        numbers=tuple(range(1, len(heads))),
    )


def _composition(answer: Answer, device: Device, found: DeviceAnswer) -> Section:
    place = f"{found.peak.moment.phase.value} ({found.place})"
    total = found.peak.num_bytes
    rows = [
        (
            _size(live.num_bytes),
            f"{100 * live.num_bytes / total:.1f} %",
            live.allocation.name + (" (pinned)" if live.allocation.pinned else ""),
            live.allocation.about,
            keys_of(answer.sizing, live.allocation),
        )
        for live in found.live
    ]
    return Section(
        title=f"Peak of {found.whose.rstrip(',')}",
        name=peak_name(device),
        lines=(f"{_size(total)} in {place}.",),
        heads=("size", "share", "allocation", "what it is", "key:line in the config"),
        rows=tuple(rows),
        numbers=(0, 1),
        has_parts=True,
    )


def _findings(answer: Answer) -> Iterator[str]:
    for finding in answer.sizing.findings:
        yield one_line(finding_line(answer.sizing, finding))


def _size(num_bytes: int) -> str:
    return format_gib(num_bytes) if num_bytes else "-"
