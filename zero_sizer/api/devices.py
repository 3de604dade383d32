"""Needs on one device, with the names of the JSON."""

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from zero_sizer.util.interval import Interval
from zero_sizer.util.records import dataclass


@dataclass(frozen=True, kw_only=True)
class DeviceUse:
    """Bytes that a job takes of one device: of each rank's GPU, of each node's host and NVMe.

    Attributes:
        per: ``rank`` or ``node``.
        peak_bytes: the most that is live at once.
        peak_phase: when.
        peak_moment: when, to the instant.
        low_bytes: the least that must be there, with what others take.
        high_bytes: the most that anything may add; None where nobody knows.
        capacity_bytes: what there is; None where nobody said.
        headroom_bytes: what stays free at least; None where that is not known.
        shortfall_bytes: what is missing for certain.
        outside: what others take: context and communication, or the processes themselves.
        reserved: what PyTorch's allocator holds at the peak; None off the GPU.
        rank: whose GPU it is; None off the GPU.
        higher_phases: phase -> another ``rank`` whose GPU holds more in it, and its ``num_bytes``.
    """

    per: str
    peak_bytes: int
    peak_phase: str
    peak_moment: str
    low_bytes: int
    high_bytes: int | None
    capacity_bytes: int | None
    headroom_bytes: int | None
    shortfall_bytes: int
    outside: Interval
    reserved: Interval | None = None
    rank: int | None = None
    higher_phases: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @classmethod
    def of(cls, mapping: Mapping[str, Any]) -> "DeviceUse":
        """The device of the JSON."""
        values = dict(mapping)
        outside, reserved = values.pop("outside_bytes"), values.pop("reserved_bytes", None)
        return cls(
            **values,
            outside=Interval(**outside),
            reserved=None if reserved is None else Interval(**reserved),
        )
