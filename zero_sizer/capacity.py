"""What the cluster has of each device, and whether a peak fits into it."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from zero_sizer.findings import Finding, Severity
from zero_sizer.hardware.cluster import Cluster, Gpu
from zero_sizer.peak import Peak
from zero_sizer.plan import Device
from zero_sizer.units import GIB, format_gib


class Fit(Enum):
    """Whether a peak fits."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """Memory of one device.

    Attributes:
        num_bytes: per rank (GPU) or per node; None when nobody said.
        outside_bytes: what others take of it that PyTorch does not count (low, high): the CUDA
            context and communication buffers on a GPU, the processes themselves on the host.
        origin: where ``num_bytes`` comes from.
    """

    num_bytes: int | None
    outside_bytes: tuple[int, int] = (0, 0)
    origin: str = ""


# NCCL allocates its channel buffers outside PyTorch: 4 MiB a buffer (NCCL_BUFFSIZE's default) per
# channel and peer, which adds up to between some hundred MiB and 2 GiB by topology.
# https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/env.html#nccl-buffsize
_NCCL_BYTES = (GIB // 4, 2 * GIB)
_DEFAULT_CONTEXT = (int(0.3 * GIB), GIB)


def outside_bytes(gpu: Gpu | None, world_size: int) -> tuple[int, int]:
    """Least and most that PyTorch does not count on a GPU."""
    context = gpu.context_bytes if gpu else _DEFAULT_CONTEXT
    nccl = _NCCL_BYTES if world_size > 1 else (0, 0)
    return context[0] + nccl[0], context[1] + nccl[1]


def capacities(cluster: Cluster) -> dict[Device, Capacity]:
    """Capacity of every device of the cluster."""
    return {
        Device.GPU: Capacity(
            num_bytes=cluster.gpu_memory,
            outside_bytes=outside_bytes(cluster.gpu, cluster.world_size),
            origin=cluster.origins.get("gpu_memory") or cluster.origins.get("gpu", ""),
        ),
        Device.HOST: Capacity(
            num_bytes=cluster.host_memory, origin=cluster.origins.get("host_memory", "")
        ),
        Device.NVME: Capacity(num_bytes=cluster.nvme, origin=cluster.origins.get("nvme", "")),
    }


def headroom(peak: Peak, capacity: Capacity) -> tuple[int, int] | None:
    """Bytes that are left beside the peak where others take most, and where they take least.

    None where nobody said how much there is.
    """
    if capacity.num_bytes is None:
        return None
    low, high = capacity.outside_bytes
    left = capacity.num_bytes - peak.num_bytes
    return left - high, left - low


def fit(peak: Peak, capacity: Capacity, request: int = 0) -> Fit:
    """Whether a peak fits, counting what others take; between low and high nobody can say.

    Nor where not even the least that others take leaves room for one more tensor as large as the
    largest: an allocator serves it from one piece of free memory, and a peak counts no holes.

    Args:
        peak: of a device.
        capacity: of the same.
        request: bytes of the largest tensor that is asked for again and again.
    """
    if peak.num_bytes == 0:
        return Fit.YES
    left = headroom(peak, capacity)
    if left is None:
        return Fit.UNKNOWN
    least, most = left
    if most < 0:
        return Fit.NO
    return Fit.YES if least >= 0 and most >= request else Fit.UNKNOWN


def fits(
    peaks: Mapping[Device, Peak], found: Mapping[Device, Capacity], request: int
) -> dict[Device, Fit]:
    """Whether each device's peak fits; ``request``: see ``fit``, it is of the GPU."""
    requests = {Device.GPU: request}
    return {device: fit(peaks[device], found[device], requests.get(device, 0)) for device in Device}


def unpublished(cluster: Cluster) -> list[Finding]:
    """A GPU whose memory, as PyTorch sees it, nobody published."""
    if cluster.gpu is None or not cluster.gpu.visible_note:
        return []
    return [
        Finding(
            code="gpu-memory-unpublished",
            severity=Severity.NOTE,
            key="--gpu",
            message=f"{cluster.gpu.name}: {cluster.gpu.visible_note}",
            remedy="give --gpu-memory as torch.cuda.get_device_properties(0).total_memory shows it",
        )
    ]


def overstated(cluster: Cluster) -> list[Finding]:
    """More memory than the GPU that is named has."""
    gpu, stated = cluster.gpu, cluster.gpu_memory
    if gpu is None or stated is None or stated <= max(gpu.marketing_bytes, gpu.visible_high_bytes):
        return []
    return [
        Finding(
            code="gpu-memory-above-card",
            severity=Severity.WARNING,
            key="--gpu-memory",
            message=f"{format_gib(stated)} is taken as stated, and a {gpu.name} has "
            f"{format_gib(gpu.marketing_bytes)}",
            remedy="leave out one of the two",
        )
    ]


def findings(
    peaks: Mapping[Device, Peak], found: Mapping[Device, Capacity], request: int
) -> list[Finding]:
    """What is worth saying about capacity: unknown sizes and peaks that are too close to call.

    ``request``: see ``fits``.
    """
    said = [
        _in_pieces(peaks[device], found[device], request)
        if fitting is not Fit.YES and fit(peaks[device], found[device]) is Fit.YES
        else _finding(device, peaks[device], found[device])
        for device, fitting in fits(peaks, found, request).items()
        if peaks[device].num_bytes
    ]
    return [finding for finding in said if finding is not None]


# What PyTorch's caching allocator needed beyond the most that it handed out: 0.5 to 22 % in
# fourteen jobs of whole models, on the smallest device that they fit (docs/limits.md).
_FRAGMENTATION = 0.22


def _fragmented(peak: Peak, capacity: Capacity) -> Finding | None:
    """A GPU that is full enough to run out of memory that lies free in pieces."""
    left = headroom(peak, capacity)
    if left is None or left[0] >= _FRAGMENTATION * peak.num_bytes:
        return None
    return Finding(
        code="gpu-fragmentation",
        severity=Severity.NOTE,
        key=_FLAG[Device.GPU],
        message=f"gpu: {format_gib(left[0])} are left for what PyTorch's allocator wastes, which "
        f"took up to {_FRAGMENTATION:.0%} of the peak elsewhere and is not counted",
        remedy=_COUNTED,
    )


def _in_pieces(peak: Peak, capacity: Capacity, request: int) -> Finding:
    left = headroom(peak, capacity) or (0, 0)
    return Finding(
        code="gpu-fragmentation",
        severity=Severity.WARNING,
        key=_FLAG[Device.GPU],
        message=f"gpu: its largest tensor takes {format_gib(request)}, and at most "
        f"{format_gib(left[1])} are left, not all in one piece: PyTorch's allocator may run out "
        "of memory that is free",
        remedy=_COUNTED,
    )


_COUNTED = (
    "`zero-sizer dryrun --how simulated` counts what lies free in pieces; "
    "PYTORCH_ALLOC_CONF=expandable_segments:True leaves less of it"
)
_FLAG = {Device.GPU: "--gpu", Device.HOST: "--host-memory", Device.NVME: "--nvme"}


def _finding(device: Device, peak: Peak, capacity: Capacity) -> Finding | None:
    match fit(peak, capacity):
        case Fit.YES:
            return _fragmented(peak, capacity) if device is Device.GPU else None
        case Fit.NO:
            short = peak.num_bytes + capacity.outside_bytes[0] - (capacity.num_bytes or 0)
            return Finding(
                code=f"{device.value}-too-small",
                severity=Severity.WARNING,
                key=_FLAG[device],
                message=f"{device.value}: {format_gib(peak.num_bytes)} needed at "
                f"'{peak.moment.value}', {format_gib(short)} more than there is",
            )
        case _ if capacity.num_bytes is None:
            return Finding(
                code=f"{device.value}-unknown",
                severity=Severity.WARNING if device is Device.GPU else Severity.NOTE,
                key=_FLAG[device],
                message=f"how much {device.value} memory there is was not stated, so nobody can "
                f"say whether {format_gib(peak.num_bytes)} fit",
                remedy=f"give {_FLAG[device]}",
            )
        case _:
            return Finding(
                code=f"{device.value}-tight",
                severity=Severity.WARNING,
                key=_FLAG[device],
                message=f"{device.value}: fits only if context and communication buffers stay "
                f"below {format_gib((capacity.num_bytes or 0) - peak.num_bytes)}",
                remedy="leave more room: they took up to "
                f"{format_gib(capacity.outside_bytes[1])} elsewhere",
            )
