"""Limits of each device, and what a plan is short of: ``capacity.need`` for sweeps."""

from collections.abc import Callable, Mapping
from dataclasses import field, replace
from functools import partial
from math import ceil
from types import MappingProxyType

from zero_sizer.advise.lasting import Use
from zero_sizer.config.workload import Workload
from zero_sizer.hardware.cluster import Cluster
from zero_sizer.hardware.device import Device
from zero_sizer.ledger import capacity
from zero_sizer.ledger.capacity import Capacity
from zero_sizer.ledger.moments import Moment
from zero_sizer.util.records import dataclass

_ROUNDS = 8  # a host's own share is a sixty-fourth: they end at the byte
MARGINS: Mapping[Device, float] = {Device.GPU: 0.09, Device.HOST: 0.05, Device.NVME: 0.05}
"""Share of each device left free: what PyTorch's allocator wastes of a GPU, in the median of what
was simulated (docs/limits.md); a host's system and page cache."""


@dataclass(frozen=True, kw_only=True)
class Shortfall:
    """Why a plan does not fit a device, or not for certain.

    Attributes:
        need_bytes: the plan's own peak; per rank on the GPU, per node elsewhere.
        over_bytes: by how much it is above what is allowed; None when nobody said how much there
            is.
        missing_bytes: what it is short of for certain, as ``check`` prints it; 0 where it might
            fit, and None when nobody said how much there is.
        kept_bytes: see ``Use.kept``, where nobody said how much there is.
        size_for: size of a device with which it fits, where nobody said how much there is.
    """

    device: Device
    need_bytes: int
    over_bytes: int | None
    missing_bytes: int | None
    moment: Moment
    kept_bytes: int = 0
    size_for: "Callable[[], int] | None" = field(default=None, repr=False, compare=False)

    @property
    def is_certain(self) -> bool:
        """True if the plan does not fit, rather than perhaps not."""
        return bool(self.missing_bytes)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bytes that a plan's own peak may reach.

    Attributes:
        found: capacity of each device.
        margins: share of each that stays free.
        cluster: whose capacity it is.
        workload: likewise, of the job.
    """

    found: Mapping[Device, Capacity]
    margins: Mapping[Device, float] = field(default_factory=lambda: MARGINS)
    cluster: Cluster | None = None
    workload: Workload | None = None

    def size_for(self, device: Device, use: Use) -> int:
        """Size of the host or of its drives that takes a use, the margin and processes included.

        A larger host needs more itself, for its pages.
        """
        margin = self.margins[device]
        if device is not Device.HOST or self.cluster is None:
            return _with_margin(use.num_bytes, margin)
        size = 0
        for _ in range(_ROUNDS):
            cluster = replace(self.cluster, host_memory=size)
            outside = capacity.capacities(cluster, self.workload)[Device.HOST].outside.high
            live = use.num_bytes + outside
            size = max(live + use.kept, _with_margin(live, margin))
        return size

    def shortfalls(
        self,
        uses: Mapping[Device, Use],
        needed: tuple[str, ...],
        beside: Mapping[Device, int] = MappingProxyType({}),
    ) -> list[Shortfall]:
        """Shortfalls of a candidate.

        Args:
            uses: its peaks.
            needed: devices that must be known.
            beside: bytes that may come on top of those, which no peak counts.
        """
        short = []
        for device, use in uses.items():
            there = self.found[device]
            if not use.num_bytes:
                continue
            if there.num_bytes is None:
                if device.value in needed:
                    unknown = _short(device, use, None, None)
                    size_for = partial(self.size_for, device, use)
                    short.append(replace(unknown, size_for=size_for, kept_bytes=use.kept))
                continue
            need = capacity.need(use.num_bytes, there, use.room, use.error)
            # the margin is what the allocator wastes: not asked for beside room for a request
            free = int(there.num_bytes * (1 - self.margins[device]))
            others = use.num_bytes + use.error + there.outside.high
            most = need.high + use.kept + beside.get(device, 0)
            over = max(most - there.num_bytes, others - free)
            if over > 0:
                short.append(_short(device, use, over, max(need.low - there.num_bytes, 0)))
        return short


def _short(device: Device, use: Use, over: int | None, missing: int | None) -> Shortfall:
    return Shortfall(
        device=device,
        need_bytes=use.num_bytes,
        over_bytes=over,
        missing_bytes=missing,
        moment=use.moment,
    )


def limits_of(
    cluster: Cluster, margin: float | None = None, workload: Workload | None = None
) -> Limits:
    """Capacity of the cluster, less the margin (one for all devices if given)."""
    margins = MARGINS if margin is None else dict.fromkeys(Device, margin)
    found = capacity.capacities(cluster, workload)
    return Limits(found=found, margins=margins, cluster=cluster, workload=workload)


def _with_margin(num_bytes: int, margin: float) -> int:
    """Size of a device of which that is all but the margin, rounded up."""
    return ceil(num_bytes / (1 - margin)) + 1 if num_bytes else 0


def spares_host(shortfalls: list[Shortfall]) -> bool:
    """True if nothing but the GPU is short."""
    return all(shortfall.device is Device.GPU for shortfall in shortfalls)


def missing_of(shortfalls: list[Shortfall]) -> tuple[int, int]:
    """Order of closeness: what is short first by devices, then by bytes."""
    return (len(shortfalls), sum(s.over_bytes or s.need_bytes + s.kept_bytes for s in shortfalls))
