"""The answer for a reader at a terminal."""

from typing import TYPE_CHECKING

from zero_sizer.findings import Finding, Severity
from zero_sizer.hardware.device import Device
from zero_sizer.ledger.capacity import reserved
from zero_sizer.ledger.entry import Allocation
from zero_sizer.ledger.moments import STEPPING, Moment, Phase
from zero_sizer.ledger.peak import Peak, phase_peaks
from zero_sizer.ledger.ranks import candidates
from zero_sizer.ledger.verdict import WHOSE, Verdict
from zero_sizer.report.table import gib, show_line, show_table, span
from zero_sizer.report.verdict import show_job, show_verdict
from zero_sizer.sizing import Sizing
from zero_sizer.timeline import compose
from zero_sizer.units import format_gib
from zero_sizer.util.terminal import one_line, output_columns

if TYPE_CHECKING:
    from zero_sizer.speed.training import Training

_SHORT = {Device.GPU: "GPU", Device.HOST: "host", Device.NVME: "NVMe"}
_WIDE = 90  # columns from which each allocation is explained
_SHOWN = 10  # allocations listed per device; the rest is one line
_EVERYWHERE = ("zero_optimization.stage", "bf16.enabled", "fp16.enabled", "optimizer.type")
_KEYS_SHOWN = 1
_NOTES = 6  # notes listed; the JSON has them all
_WORTH_A_TABLE = 2**20  # bytes: below, a device's composition is not listed


def show(sizing: Sizing, *, timeline: bool = False, training: "Training | None" = None) -> None:
    """Print the report, with the plot where it is asked for."""
    show_verdict(sizing)
    show_job(sizing)
    if sizing.plan:
        print()
        _devices(sizing)
        for device in Device:
            if sizing.peaks[device].num_bytes >= _WORTH_A_TABLE:
                print()
                _composition(sizing, device)
        if timeline:
            from zero_sizer.report.timeline import show_timeline

            show_timeline(sizing)
        _speed(sizing)
        if training is not None:
            from zero_sizer.report.training import show_training

            show_training(training)
        if sizing.verdict is not Verdict.FITS:
            _fixes(sizing)
    if sizing.findings:
        print()
        _findings(sizing)


def _phases_shown(sizing: Sizing) -> tuple[Phase, ...]:
    """Saving and loading only where they decide; the JSON has them all."""
    highest = {peak.moment.phase for peak in sizing.peaks.values() if peak.num_bytes}
    return (*STEPPING, *(p for p in (Phase.SAVE, Phase.LOAD) if p in highest))


def _devices(sizing: Sizing) -> None:
    """One table: columns are phases, or, where the output is narrow, devices."""
    shown = _phases_shown(sizing)
    heads = ["GiB", *(phase.value for phase in shown), "peak", "reserved", "outside", "capacity"]
    rows = [_device(sizing, device, shown) for device in Device if sizing.peaks[device].num_bytes]
    table = [heads, *rows]
    wide = sum(max(map(len, column)) for column in zip(*table, strict=True)) + 2 * len(heads) - 2
    if wide > output_columns():
        table = [list(column) for column in zip(*table, strict=True)]
    show_table(table[0], table[1:], right=range(1, len(table[0])))


def _device(sizing: Sizing, device: Device, shown: tuple[Phase, ...]) -> list[str]:
    peak, found = sizing.peaks[device], sizing.capacities[device]
    phases = phase_peaks(sizing.moments[device])
    reserve = reserved(peak.num_bytes, found, sizing.needs[device].room)
    return [
        _SHORT[device],
        *(gib(phases[phase]) for phase in shown),
        gib(peak.num_bytes),
        span(peak.num_bytes, reserve.high) if device is Device.GPU else "-",
        span(found.outside.low, found.outside.high) if found.outside.high else "-",
        gib(found.num_bytes) if found.num_bytes is not None else "not stated",
    ]


def _composition(sizing: Sizing, device: Device) -> None:
    peak = sizing.peaks[device]
    place = f"{peak.moment.phase.value} ({_place(sizing, peak)})"
    print(f"{_fullest(sizing, device)} at its peak, in {place}:")
    ranks = sizing.job.cluster.gpus_per_node
    live = _live(sizing, device, peak.moment)
    rows = [
        (
            format_gib(allocation.on_device(ranks)),
            allocation.name + (" (pinned)" if allocation.pinned else ""),
            allocation.about,
            _keys(sizing, allocation),
        )
        for allocation in live[:_SHOWN]
    ]
    rest = sum(a.on_device(ranks) for a in live[_SHOWN:])
    if rest:
        rows.append((format_gib(rest), f"{len(live) - _SHOWN} smaller ones", "", ""))
    heads = ("", "", "", "key:line in your config")
    # names say enough where there is no room to explain them
    shown = (0, 1, 2, 3) if output_columns() >= _WIDE else (0, 1, 3)
    table = [[row[column] for column in shown] for row in (heads, *rows)]
    show_table(table[0], table[1:], right=(0,))


def _fullest(sizing: Sizing, device: Device) -> str:
    """The device that is listed; GPUs of some plans differ by rank."""
    if device is Device.GPU and sizing.plan and len(candidates(sizing.plan)) > 1:
        return f"the GPU of rank {sizing.plan.rank}, which holds most,"
    return WHOSE[device]


def _place(sizing: Sizing, peak: Peak) -> str:
    if sizing.plan and peak.moment is Moment.FORWARD:
        return compose.timeline_of(sizing.plan).forward.place
    if sizing.plan and peak.moment is Moment.BACKWARD:
        return compose.timeline_of(sizing.plan).backward.place
    return peak.moment.value


def _live(sizing: Sizing, device: Device, moment: Moment) -> list[Allocation]:
    found = [a for a in sizing.allocations if a.device is device and moment in a.moments]
    return sorted(found, key=lambda a: -a.on_device(sizing.job.cluster.gpus_per_node))


def _keys(sizing: Sizing, allocation: Allocation) -> str:
    """Keys of the config that decide this, with their lines; defaults stay in the JSON."""
    document = sizing.job.document
    lines = {key: document.line(key) for key in allocation.keys if document.line(key)}
    telling = {key: line for key, line in lines.items() if key not in _EVERYWHERE} or lines
    shown = [f"{key.rpartition('.')[2]}:{line}" for key, line in telling.items()][:_KEYS_SHOWN]
    return ", ".join(shown) + (", ..." if len(telling) > _KEYS_SHOWN else "")


def _fixes(sizing: Sizing) -> None:
    from zero_sizer.advise.fixes import fixes
    from zero_sizer.report.fixes import show_fixes

    found = fixes(sizing)
    if found:
        print()
        show_fixes(found)
    elif not sizing.is_valid and sizing.verdict is Verdict.DOES_NOT_FIT:
        print("\nWhat would make it fit is looked for once the errors are corrected.")


def _speed(sizing: Sizing) -> None:
    from zero_sizer import speed

    if sizing.verdict is Verdict.DOES_NOT_FIT or not sizing.is_valid:
        return  # nobody trains at the speed of what cannot run
    estimate = speed.estimate(sizing)
    if estimate is not None:
        step, rate = estimate["step_seconds"], estimate["tokens_per_second_per_gpu"]
        print()
        show_line(
            f"A step takes about {step['expected']:.3g} s ({step['low']:.3g} to "
            f"{step['high']:.3g}): {rate['expected']:,.0f} tokens a second on each GPU "
            f"({rate['low']:,.0f} to {rate['high']:,.0f}).",
            indent="",
        )


def _findings(sizing: Sizing) -> None:
    notes = 0
    for finding in sizing.findings:
        if finding.severity is Severity.NOTE:
            notes += 1
            if notes > _NOTES:
                continue
        show_line(_line(sizing, finding))
    if notes > _NOTES:
        more = notes - _NOTES
        print(f"and {more} more note{'s' if more > 1 else ''} (--format json lists them all)")


def _line(sizing: Sizing, finding: Finding) -> str:
    source = sizing.job.document.source
    where = f"{source}:{finding.line}: " if finding.line else ""
    key = f"{finding.key}: " if finding.key else ""
    remedy = f"; {finding.remedy}" if finding.remedy else ""
    line = f"{finding.severity.value}: {where}{key}{finding.message}{remedy} [{finding.code}]"
    return one_line(line)
