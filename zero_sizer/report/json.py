"""The answer as JSON, in the contract's shape (schema_version 1)."""

from typing import Any

from zero_sizer.answer import Answer, DeviceAnswer
from zero_sizer.config.settings import MODELS_DEEPSPEED, Setting
from zero_sizer.findings import Finding, Reason
from zero_sizer.hardware.device import Device
from zero_sizer.ledger.entry import Allocation
from zero_sizer.ledger.moments import Moment
from zero_sizer.report.document import print_document
from zero_sizer.report.fixes import fix_mapping
from zero_sizer.sizing import Sizing
from zero_sizer.version import __version__

SCHEMA_VERSION = 1
_PER = {Device.GPU: "rank", Device.HOST: "node", Device.NVME: "node"}


def show(answer: Answer, *, timeline: bool = False) -> None:
    """Print one JSON document; every byte count is an integer."""
    print_document(whole_mapping(answer, timeline=timeline))


def whole_mapping(answer: Answer, *, timeline: bool = False) -> dict[str, Any]:
    """The contract's mapping, with the timeline and the training run where there are such."""
    mapping = as_mapping(answer)
    if timeline:
        from zero_sizer.report.timeline import as_mapping as timeline_mapping

        mapping["timeline"] = timeline_mapping(answer)
    if answer.training is not None:
        from zero_sizer.report.training import as_mapping as training_mapping

        mapping["training"] = training_mapping(answer.training)
    return mapping


def as_mapping(answer: Answer) -> dict[str, Any]:
    """The contract's mapping."""
    sizing = answer.sizing
    return {
        "schema_version": SCHEMA_VERSION,
        "zero_sizer": __version__,
        "models_deepspeed": MODELS_DEEPSPEED,
        "verdict": sizing.verdict.value,
        "valid": sizing.is_valid,
        "reasons": [reason_mapping(reason) for reason in sizing.reasons],
        "devices": {
            device.value: device_mapping(sizing, device, found)
            for device, found in answer.devices.items()
        },
        "phases": {
            device.value: {phase.value: peak for phase, peak in found.phases.items()}
            for device, found in answer.devices.items()
        },
        "allocations": [_allocation(sizing, a) for a in sizing.allocations],
        "findings": [finding_mapping(f) for f in sizing.findings],
        "fixes": list(map(fix_mapping, answer.fixes)),
        "speed": dict(answer.speed or {}),
        "job": {key: _setting(s) for key, s in sorted(sizing.settings.items())},
    }


def reason_mapping(reason: Reason) -> dict[str, str]:
    """One reason of a verdict."""
    return {**vars(reason), "direction": reason.direction.value}


def device_mapping(sizing: Sizing, device: Device, found: DeviceAnswer) -> dict[str, Any]:
    """Needs of the job on one device."""
    peak, need, there = found.peak, found.need, found.capacity.num_bytes
    low, high = (need.low, need.high) if found.is_used else (0, 0)
    rank = {"rank": sizing.plan.rank} if sizing.plan and device is Device.GPU else {}
    mapping: dict[str, Any] = {
        "per": _PER[device],
        **rank,
        "peak_bytes": peak.num_bytes,
        "peak_phase": peak.moment.phase.value,
        "peak_moment": peak.moment.value,
        "low_bytes": low,
        "high_bytes": high,
        "capacity_bytes": there,
        "headroom_bytes": None if there is None or high is None else there - high,
        "shortfall_bytes": found.shortfall,
        "outside_bytes": dict(found.capacity.outside._asdict()),
    }
    if found.higher:
        more = {phase.value: dict(of._asdict()) for phase, of in found.higher.items()}
        mapping["higher_phases"] = more
    if device is Device.GPU:
        mapping["reserved_bytes"] = dict(found.reserved._asdict())
    return mapping


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


def finding_mapping(finding: Finding) -> dict[str, Any]:
    """One finding."""
    return {
        "code": finding.code,
        "severity": finding.severity.value,
        "key": finding.key,
        "line": finding.line,
        **({"file": finding.file} if finding.file else {}),
        "message": finding.message,
        "remedy": finding.remedy,
        "direction": finding.direction.value if finding.direction else None,
    }


def _setting(setting: Setting) -> dict[str, Any]:
    return {"value": setting.value, "origin": setting.origin}
