"""What a plan may use of each device, and what it is short of."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from zero_sizer import capacity
from zero_sizer.advise.sweep import Use
from zero_sizer.hardware.cluster import Cluster
from zero_sizer.moments import Moment
from zero_sizer.plan import Device

MARGINS: Mapping[Device, float] = {Device.GPU: 0.09, Device.HOST: 0.05, Device.NVME: 0.05}
"""Share of each device left free: what PyTorch's allocator wastes of a GPU, in the median of what
was simulated (docs/limits.md); a host's system and page cache."""


@dataclass(frozen=True, kw_only=True)
class Shortfall:
    """Why a plan does not fit a device.

    Attributes:
        need_bytes: the plan's own peak; per rank on the GPU, per node elsewhere.
        missing_bytes: what it is short of, margin and outside use counted; None when nobody said
            how much there is.
    """

    device: Device
    need_bytes: int
    missing_bytes: int | None
    moment: Moment


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bytes that a plan's own peak may reach; None where the size was not stated.

    Attributes:
        allowed: of each device.
        with_request: of a GPU, the peak and one more of the largest tensor (``capacity.fit``).
        margins: what ``allowed`` leaves free.
    """

    allowed: Mapping[Device, int | None]
    with_request: int | None = None
    margins: Mapping[Device, float] = field(default_factory=lambda: MARGINS)

    def shortfalls(self, uses: Mapping[Device, Use], needed: tuple[str, ...]) -> list[Shortfall]:
        """What ``uses`` is short of; ``needed`` names the devices that must be known."""
        found = []
        for device, use in uses.items():
            allowed = self.allowed[device]
            if allowed is None:
                if use.num_bytes and device.value in needed:
                    found.append(_short(device, use, None))
                continue
            missing = use.num_bytes - allowed
            if use.request and self.with_request is not None:
                missing = max(missing, use.num_bytes + use.request - self.with_request)
            if missing > 0 and use.num_bytes:
                found.append(_short(device, use, missing))
        return found


def _short(device: Device, use: Use, missing: int | None) -> Shortfall:
    return Shortfall(
        device=device, need_bytes=use.num_bytes, missing_bytes=missing, moment=use.moment
    )


def limits_of(cluster: Cluster, margin: float | None = None) -> Limits:
    """Capacity less the most that others take of it, less the margin (one for all if given)."""
    margins = MARGINS if margin is None else dict.fromkeys(Device, margin)
    allowed: dict[Device, int | None] = {}
    with_request = None
    for device, found in capacity.capacities(cluster).items():
        if found.num_bytes is None:
            allowed[device] = None
        else:
            free = found.num_bytes * (1 - margins[device]) - found.outside_bytes[1]
            allowed[device] = max(int(free), 0)
            if device is Device.GPU:
                with_request = found.num_bytes - found.outside_bytes[0]
    return Limits(allowed=allowed, with_request=with_request, margins=margins)
