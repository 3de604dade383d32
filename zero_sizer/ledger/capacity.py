"""Capacity of each device, what else is taken of it, and whether a peak fits into it.

One rule, for every command: a job fits where the most that it may need is there, and does not fit
where not even the least is.
"""

from collections.abc import Mapping
from enum import Enum

from zero_sizer.config.workload import Workload
from zero_sizer.findings import Finding, Severity
from zero_sizer.hardware import outside
from zero_sizer.hardware.cluster import Cluster
from zero_sizer.hardware.device import Device
from zero_sizer.units import GIB, format_gib
from zero_sizer.util.interval import NOTHING, Interval
from zero_sizer.util.records import dataclass

FLAG = {Device.GPU: "--gpu", Device.HOST: "--host-memory", Device.NVME: "--nvme"}
"""Option that states how much there is of a device."""

_GB = 10**9
_RESERVE = (0.2, 0.65)
"""What PyTorch's caching allocator reserved beyond the most that it handed out, of that, where it
had room: in the median and at most, in eighty replayed jobs (benchmarks/results.md)."""


class Fit(Enum):
    """Result of comparing a need with a capacity."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """Memory of one device.

    Attributes:
        num_bytes: per rank (GPU) or per node; None when nobody said.
        outside: what others take of it that the ledger does not count: the CUDA context and
            communication buffers on a GPU, the processes themselves on the host.
        origin: where ``num_bytes`` comes from.
        reserve: shares that PyTorch's allocator reserves beyond what it hands out, in the median
            and at most.
    """

    num_bytes: int | None
    outside: Interval = NOTHING
    origin: str = ""
    reserve: tuple[float, float] = _RESERVE


def capacities(cluster: Cluster, workload: Workload | None = None) -> dict[Device, Capacity]:
    """Capacity of every device of the cluster, with what the workload's processes take."""
    host = outside.of_host(
        cluster.host_memory or 0,
        cluster.gpus_per_node,
        workers=(workload and workload.num_workers) or 0,
        batches=_batches_ahead(workload),
        batch_bytes=_batch_bytes(workload),
        process=_process(cluster),
    )
    measured = cluster.measured.reserve if cluster.measured is not None else None
    return {
        Device.GPU: Capacity(
            num_bytes=cluster.gpu_memory,
            outside=outside.of_cluster(cluster),
            origin=cluster.origins.get("gpu_memory") or cluster.origins.get("gpu", ""),
            reserve=_RESERVE if measured is None else (measured.median, measured.most),
        ),
        Device.HOST: Capacity(
            num_bytes=cluster.host_memory,
            outside=host,
            origin=cluster.origins.get("host_memory", ""),
        ),
        Device.NVME: Capacity(num_bytes=cluster.nvme, origin=cluster.origins.get("nvme", "")),
    }


def _process(cluster: Cluster) -> Interval:
    """Host memory of a rank's process without its tensors, measured on the cluster if it was."""
    found = cluster.measured.process if cluster.measured is not None else None
    return outside.PROCESS.interval if found is None else found.interval


_USUAL_PREFETCH = 2  # torch.utils.data.DataLoader's prefetch_factor
_USUAL_SEQ_LEN = 2048


def _batches_ahead(workload: Workload | None) -> int:
    stated = None if workload is None else workload.prefetch
    return _USUAL_PREFETCH if stated is None else stated


def _batch_bytes(workload: Workload | None) -> int:
    if workload is None:
        return 0
    return outside.batch_bytes(workload.micro_batch or 1, workload.seq_len or _USUAL_SEQ_LEN)


def need(num_bytes: int, found: Capacity, room: int = 0, error: int = 0) -> Interval:
    """Bytes that a peak of ``num_bytes`` takes of a device together with everything outside of it.

    At most, others take the most that they took elsewhere, or what is usual of them and the
    allocator wants room for the largest tensor: it serves that from one piece of free memory, and a
    sum of live bytes counts no holes. Both at their worst at once is not asked for.

    Args:
        num_bytes: live at the highest instant.
        found: capacity of the device.
        room: what may be asked for in one piece beside that (``passes.requests.room_of``).
        error: the most by which ``num_bytes`` may be too low or too high.
    """
    others = found.outside
    return Interval(
        max(num_bytes - error, 0) + others.low,
        num_bytes + others.expected,
        num_bytes + error + max(others.high, others.expected + room),
    )


def reserved(num_bytes: int, found: Capacity, room: int = 0) -> Interval:
    """Bytes that PyTorch may reserve for a peak of a GPU: less than this where the GPU is full.

    A full device makes the allocator give back whatever it caches whole, so that a reserve above
    the capacity is no reason to fail.
    """
    median, most = (int(num_bytes * (1 + share)) for share in found.reserve)
    limit = None if found.num_bytes is None else found.num_bytes - found.outside.low
    high = max(most, num_bytes + room)
    if limit is None or limit < num_bytes:
        return Interval(num_bytes, median, high)
    return Interval(num_bytes, min(median, limit), min(high, limit))


def fit(num_bytes: int, found: Capacity, room: int = 0, error: int = 0) -> Fit:
    """Compares a peak with a capacity; see ``need``."""
    if num_bytes == 0:
        return Fit.YES
    if found.num_bytes is None:
        return Fit.UNKNOWN
    low, _, high = need(num_bytes, found, room, error)
    if low > found.num_bytes:
        return Fit.NO
    return Fit.YES if high <= found.num_bytes else Fit.UNKNOWN


def fits(
    peaks: Mapping[Device, int], found: Mapping[Device, Capacity], room: int, error: int = 0
) -> dict[Device, Fit]:
    """Compares each device's peak with its capacity; ``room`` and ``error`` are the GPU's."""
    return {
        device: fit(peaks[device], found[device], room, error)
        if device is Device.GPU
        else fit(peaks[device], found[device])
        for device in Device
    }


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


def calibrated(cluster: Cluster) -> list[Finding]:
    """The cluster profile that the answer rests on, and what it measured."""
    profile = cluster.measured
    if profile is None:
        return []
    words = "; ".join(profile.words()) or "nothing that this job needs"
    return [
        Finding(
            code="cluster-profile",
            severity=Severity.NOTE,
            key="--cluster-profile",
            message=f"{profile.origin}, by {profile.ranks} rank"
            f"{'s' if profile.ranks != 1 else ''}: {words}",
        ),
    ]


def decimal(cluster: Cluster) -> list[Finding]:
    """Memory in units of 10^9 bytes, in which none is sold: a host of 128 GB has 128 GiB."""
    stated = {"--gpu-memory": cluster.gpu_memory, "--host-memory": cluster.host_memory}
    if cluster.gpu is not None and cluster.gpu_memory == cluster.gpu.visible_bytes:
        del stated["--gpu-memory"]
    return [
        Finding(
            code="decimal-memory",
            severity=Severity.NOTE,
            key=key,
            message=f"{size // _GB}GB was read as {size // _GB} x 10^9 bytes, {format_gib(size)}",
            remedy=f"where {size // _GB} GiB are meant, write {size // _GB}GiB",
        )
        for key, size in stated.items()
        if size is not None and size % _GB == 0 and size % GIB
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
