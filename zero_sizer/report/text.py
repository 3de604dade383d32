"""The answer for a reader at a terminal."""

from collections.abc import Mapping
from typing import Any

from zero_sizer.answer import Answer, DeviceAnswer, phases_of
from zero_sizer.findings import Finding, Severity
from zero_sizer.hardware.device import Device
from zero_sizer.ledger.entry import Allocation
from zero_sizer.ledger.moments import Phase
from zero_sizer.ledger.verdict import Verdict
from zero_sizer.report.table import gib, show_line, show_table, span
from zero_sizer.report.verdict import show_job, show_verdict
from zero_sizer.sizing import Sizing
from zero_sizer.units import format_gib
from zero_sizer.util.terminal import one_line, output_columns

NAMES = {Device.GPU: "GPU", Device.HOST: "host", Device.NVME: "NVMe"}
_WIDE = 90  # columns from which each allocation is explained
_SHOWN = 10  # allocations listed per device; the rest is one line
_EVERYWHERE = ("zero_optimization.stage", "bf16.enabled", "fp16.enabled", "optimizer.type")
_KEYS_SHOWN = 1
_NOTES = 6  # notes listed; the JSON has them all
_WORTH_A_TABLE = 2**20  # bytes: below, a device's composition is not listed


def show(answer: Answer, *, timeline: bool = False) -> None:
    """Print the report, with the plot where it is asked for."""
    sizing = answer.sizing
    show_verdict(sizing)
    show_job(sizing)
    if sizing.plan:
        print()
        _devices(answer)
        for found in answer.devices.values():
            if found.peak.num_bytes >= _WORTH_A_TABLE:
                print()
                _composition(sizing, found)
        if timeline:
            from zero_sizer.report.timeline import show_timeline

            show_timeline(answer)
        _speed(answer)
        if answer.training is not None:
            from zero_sizer.report.training import show_training

            show_training(answer.training)
        if sizing.verdict is not Verdict.FITS:
            _fixes(answer)
    if sizing.findings:
        print()
        _findings(sizing)


def show_brief(answer: Answer) -> None:
    """Print the verdict, where a GPU was stated, the job, and what it takes of each device."""
    if answer.sizing.job.cluster.gpu_memory is not None:
        show_verdict(answer.sizing)
    show_job(answer.sizing)
    if answer.sizing.plan:
        _devices(answer)


def phases_shown(answer: Answer) -> tuple[Phase, ...]:
    """Saving and loading only where they decide; the JSON has them all."""
    highest = {found.peak.moment.phase for found in answer.devices.values() if found.is_used}
    always = (Phase.SAVE, Phase.LOAD)
    return tuple(p for p in phases_of(answer.sizing) if p not in always or p in highest)


def _devices(answer: Answer) -> None:
    """One table: columns are phases, or, where the output is narrow, devices."""
    shown = phases_shown(answer)
    heads = ["GiB", *(phase.value for phase in shown), "peak", "reserved", "outside", "capacity"]
    rows = [
        _device(device, found, shown) for device, found in answer.devices.items() if found.is_used
    ]
    table = [heads, *rows]
    wide = sum(max(map(len, column)) for column in zip(*table, strict=True)) + 2 * len(heads) - 2
    if wide > output_columns():
        table = [list(column) for column in zip(*table, strict=True)]
    show_table(table[0], table[1:], right=range(1, len(table[0])))
    others = other_ranks(answer, shown)
    if others:
        show_line(others, indent="")


def other_ranks(answer: Answer, shown: tuple[Phase, ...]) -> str:
    """Which rank the phases of a GPU are of, and where another one holds more; empty if none."""
    found, plan = answer.devices[Device.GPU], answer.sizing.plan
    phases = [p for p in shown if p in found.higher]
    if plan is None or not phases:
        return ""
    more = [
        f"{format_gib(found.higher[p].num_bytes)} in {p.value} (rank {found.higher[p].rank})"
        for p in phases
    ]
    return (
        f"GPU: of rank {plan.rank}, which holds most over the run; other ranks hold up to "
        f"{' and '.join(more)}"
    )


def _device(device: Device, found: DeviceAnswer, shown: tuple[Phase, ...]) -> list[str]:
    peak, capacity = found.peak.num_bytes, found.capacity
    return [
        NAMES[device],
        *(gib(found.phases[phase]) for phase in shown),
        gib(peak),
        span(peak, found.reserved.high) if device is Device.GPU else "-",
        span(capacity.outside.low, capacity.outside.high) if capacity.outside.high else "-",
        gib(capacity.num_bytes) if capacity.num_bytes is not None else "not stated",
    ]


def _composition(sizing: Sizing, found: DeviceAnswer) -> None:
    place = f"{found.peak.moment.phase.value} ({found.place})"
    show_line(f"{found.whose} at its peak, in {place}:", indent="")
    rows = [
        (
            format_gib(live.num_bytes),
            live.allocation.name + (" (pinned)" if live.allocation.pinned else ""),
            live.allocation.about,
            keys_of(sizing, live.allocation),
        )
        for live in found.live[:_SHOWN]
    ]
    rest = sum(live.num_bytes for live in found.live[_SHOWN:])
    if rest:
        rows.append((format_gib(rest), f"{len(found.live) - _SHOWN} smaller ones", "", ""))
    heads = ("", "", "", "key:line in your config")
    # names say enough where there is no room to explain them
    shown = (0, 1, 2, 3) if output_columns() >= _WIDE else (0, 1, 3)
    table = [[row[column] for column in shown] for row in (heads, *rows)]
    show_table(table[0], table[1:], right=(0,))


def keys_of(sizing: Sizing, allocation: Allocation) -> str:
    """Keys of the config that decide this, with their lines; defaults stay in the JSON."""
    document = sizing.job.document
    lines = {key: document.line(key) for key in allocation.keys if document.line(key)}
    telling = {key: line for key, line in lines.items() if key not in _EVERYWHERE} or lines
    shown = [f"{key.rpartition('.')[2]}:{line}" for key, line in telling.items()][:_KEYS_SHOWN]
    return ", ".join(shown) + (", ..." if len(telling) > _KEYS_SHOWN else "")


def _fixes(answer: Answer) -> None:
    from zero_sizer.report.fixes import show_fixes

    sizing = answer.sizing
    if answer.fixes:
        print()
        show_fixes(answer.fixes)
    elif not sizing.is_valid and sizing.verdict is Verdict.DOES_NOT_FIT:
        print()
        show_line("What would make it fit is looked for once the errors are corrected.")


def _speed(answer: Answer) -> None:
    if answer.speed is not None:
        print()
        show_line(speed_line(answer.speed), indent="")


def speed_line(speed: Mapping[str, Any]) -> str:
    """The ``speed`` block in a sentence."""
    step, rate = speed["step_seconds"], speed["tokens_per_second_per_gpu"]
    return (
        f"A step takes about {step['expected']:.3g} s ({step['low']:.3g} to "
        f"{step['high']:.3g}): {rate['expected']:,.0f} {speed['counted']} a second on each GPU "
        f"({rate['low']:,.0f} to {rate['high']:,.0f})."
    )


def _findings(sizing: Sizing) -> None:
    notes = 0
    for finding in sizing.findings:
        if finding.severity is Severity.NOTE:
            notes += 1
            if notes > _NOTES:
                continue
        show_line(finding_line(sizing, finding))
    if notes > _NOTES:
        more = notes - _NOTES
        show_line(f"and {more} more note{'s' if more > 1 else ''} (--format json lists them all)")


def finding_line(sizing: Sizing, finding: Finding) -> str:
    """One finding with its file, line and key."""
    return line_of(finding, sizing.job.document.source)


def line_of(finding: Finding, config: str) -> str:
    """One finding with its file, which is ``config`` where it names none, line and key."""
    source = finding.file or config
    where = f"{source}:{finding.line}: " if finding.line else ""
    key = f"{finding.key}: " if finding.key else ""
    remedy = f"; {finding.remedy}" if finding.remedy else ""
    line = f"{finding.severity.value}: {where}{key}{finding.message}{remedy} [{finding.code}]"
    return one_line(line)
