"""Fixes as lines for a reader, and as JSON."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from zero_sizer.advise.fixes import Fix
from zero_sizer.advise.moves import Change
from zero_sizer.hardware.device import Device
from zero_sizer.report.table import show_line, show_table
from zero_sizer.units import format_gib


def show_fixes(fixes: Sequence[Fix]) -> None:
    """Print what would make the job fit, the least disruptive first; nothing if nothing would."""
    if not fixes:
        return
    rows = fix_rows(fixes)
    doubt = fixes[0].doubt
    show_table(("new peak", "time a token", f"it {'may' if doubt else 'would'} fit with"), rows)
    if doubt:
        show_line(f"may, not would: {doubt}")


def fix_rows(fixes: Sequence[Fix]) -> list[tuple[str, str, str]]:
    """New peak, cost and changes of each, as text."""
    return [(_peaks(fix), _cost(fix), ", ".join(_changes(fix.changes))) for fix in fixes]


def fix_line(fix: Fix) -> str:
    """One fix in a line."""
    may = "may" if fix.doubt else "would"
    return f"it {may} fit with {', '.join(_changes(fix.changes))} (peak {_peaks(fix)})"


def _peaks(fix: Fix) -> str:
    shown = [Device.GPU, *fix.unknown]
    shown += [d for d in (Device.HOST, Device.NVME) if _is_offload(fix) and d not in shown]
    return ", ".join(
        f"{device.value} {format_gib(fix.peaks[device])}" for device in shown if fix.peaks[device]
    )


def _is_offload(fix: Fix) -> bool:
    return any("offload" in change.key for change in fix.changes)


def _cost(fix: Fix) -> str:
    return f"{fix.slowdown:.2f}x" if fix.slowdown else ""


def _changes(changes: Iterable[Change]) -> Iterable[str]:
    for change in changes:
        if change.key.startswith("--"):
            yield change.key if change.value is True else f"{change.key} {change.value}"
        else:
            key = change.key.removeprefix("zero_optimization.")
            is_gone = change.value is None
            yield f"without {key}" if is_gone else f"{key}: {json.dumps(change.value)}"


def fix_mapping(fix: Fix) -> dict[str, Any]:
    """One fix as JSON."""
    return {
        "name": fix.name,
        "changes": [{"key": change.key, "value": change.value} for change in fix.changes],
        "peak_bytes": {device.value: size for device, size in fix.peaks.items()},
        "slowdown": fix.slowdown,
        "certain": not fix.doubt,
        "capacity_not_stated": [device.value for device in fix.unknown],
    }
