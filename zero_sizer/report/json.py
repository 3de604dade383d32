"""The answer as JSON, in the contract's shape (schema_version 1)."""

import json
from math import isfinite
from typing import Any

from zero_sizer import __version__, speed
from zero_sizer.capacity import headroom
from zero_sizer.config.settings import Setting
from zero_sizer.findings import Finding, Severity
from zero_sizer.ledger import Allocation
from zero_sizer.moments import Moment
from zero_sizer.peak import phase_peaks
from zero_sizer.plan import Device
from zero_sizer.sizing import Sizing, Verdict

SCHEMA_VERSION = 1
MODELS_DEEPSPEED = "0.19.8"
_PER = {Device.GPU: "rank", Device.HOST: "node", Device.NVME: "node"}


def render(sizing: Sizing, *, timeline: bool = False) -> str:
    """One JSON document; every byte count is an integer."""
    mapping = as_mapping(sizing)
    if timeline:
        from zero_sizer.report.timeline import as_mapping as timeline_mapping

        mapping["timeline"] = timeline_mapping(sizing)
    finite = _finite(mapping)
    return json.dumps(finite, indent=1, ensure_ascii=False, default=str, allow_nan=False)


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: a config's are written as words."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not isfinite(value) else value


def as_mapping(sizing: Sizing) -> dict[str, Any]:
    """The contract's mapping."""
    return {
        "schema_version": SCHEMA_VERSION,
        "zero_sizer": __version__,
        "models_deepspeed": MODELS_DEEPSPEED,
        "verdict": sizing.verdict.value,
        "valid": not any(f.severity is Severity.ERROR for f in sizing.findings),
        "devices": {device.value: _device(sizing, device) for device in Device},
        "phases": {
            device.value: {
                phase.value: peak for phase, peak in phase_peaks(sizing.moments[device]).items()
            }
            for device in Device
        },
        "allocations": [_allocation(sizing, a) for a in sizing.allocations],
        "findings": [_finding(f) for f in sizing.findings],
        "fixes": _fixes(sizing),
        "speed": speed.estimate(sizing) or {},
        "job": {key: _setting(s) for key, s in sorted(sizing.settings.items())},
    }


def _fixes(sizing: Sizing) -> list[Any]:
    """Changes that would make it fit; looked for only where it does not."""
    if sizing.verdict is not Verdict.DOES_NOT_FIT:
        return []
    from zero_sizer.advise.fixes import fixes
    from zero_sizer.report.fixes import fix_mapping

    return [fix_mapping(fix) for fix in fixes(sizing)]


def _device(sizing: Sizing, device: Device) -> dict[str, Any]:
    peak, capacity = sizing.peaks[device], sizing.capacities[device]
    left = headroom(peak, capacity)
    rank = {"rank": sizing.plan.rank} if sizing.plan and device is Device.GPU else {}
    return {
        "per": _PER[device],
        **rank,
        "peak_bytes": peak.num_bytes,
        "peak_phase": peak.moment.phase.value,
        "peak_moment": peak.moment.value,
        "capacity_bytes": capacity.num_bytes,
        "headroom_bytes": left[0] if left else None,
        "outside_bytes": {"low": capacity.outside_bytes[0], "high": capacity.outside_bytes[1]},
    }


def _allocation(sizing: Sizing, allocation: Allocation) -> dict[str, Any]:
    return {
        "name": allocation.name,
        "category": allocation.category.value,
        "about": allocation.about,
        "device": allocation.device.value,
        "per": "node" if allocation.once_per_node else "rank",
        "pinned": allocation.pinned,
        "num_bytes": allocation.num_bytes,
        "rounding_bytes": allocation.rounding_bytes,
        "phases": [phase.value for phase in allocation.phases],
        "moments": [moment.value for moment in Moment if moment in allocation.moments],
        "keys": {
            key: _setting(sizing.settings[key]) for key in allocation.keys if key in sizing.settings
        },
        "source": allocation.source,
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "code": finding.code,
        "severity": finding.severity.value,
        "key": finding.key,
        "line": finding.line,
        "message": finding.message,
        "remedy": finding.remedy,
    }


def _setting(setting: Setting) -> dict[str, Any]:
    return {"value": setting.value, "origin": setting.origin}
