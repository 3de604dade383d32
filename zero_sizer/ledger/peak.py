"""Adding up: allocations over moments, per device; the highest instant is the peak."""

from collections.abc import Iterable, Mapping

from zero_sizer.hardware.device import Device
from zero_sizer.ledger.entry import Allocation
from zero_sizer.ledger.moments import Moment, Phase
from zero_sizer.util.records import dataclass


@dataclass(frozen=True, kw_only=True)
class Peak:
    """The highest instant of one device.

    Attributes:
        num_bytes: live bytes at that instant, pinned rounding included; per rank on the GPU, per
            node on host and NVMe.
        moment: the instant.
    """

    num_bytes: int
    moment: Moment


def totals(
    allocations: Iterable[Allocation], ranks_per_node: int
) -> Mapping[Device, Mapping[Moment, int]]:
    """Live bytes per device and moment; host and NVMe are shared by the ranks of a node."""
    sums = {device: dict.fromkeys(Moment, 0) for device in Device}
    for allocation in allocations:
        size = allocation.on_device(ranks_per_node)
        per_moment = sums[allocation.device]
        for moment in allocation.moments:
            per_moment[moment] += size
    return sums


def peak_of(per_moment: Mapping[Moment, int]) -> Peak:
    """The highest moment; the earliest of equals."""
    moment = max(per_moment, key=lambda m: per_moment[m])
    return Peak(num_bytes=per_moment[moment], moment=moment)


def phase_peaks(
    per_moment: Mapping[Moment, int], phases: Iterable[Phase] = Phase
) -> dict[Phase, int]:
    """The highest moment of each of some phases."""
    return {
        phase: max(value for moment, value in per_moment.items() if moment.phase is phase)
        for phase in phases
    }
