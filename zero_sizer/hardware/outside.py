"""Memory that others take of a device beside the job's tensors: measured ranges, each in one place.

No formula gives them, so they are the ends of what was published or measured, with sources. On a
GPU only the driver (``nvidia-smi``, ``mem_get_info``) sees them; on a host they are the processes
themselves and the kernel's own table of pages.
"""

from zero_sizer.hardware.cluster import Cluster, Gpu
from zero_sizer.units import GIB, MIB, ceil_div
from zero_sizer.util.interval import NOTHING, Interval, between
from zero_sizer.util.records import dataclass


@dataclass(frozen=True, kw_only=True)
class MeasuredRange:
    """Lowest and highest measurement of something without a formula.

    Attributes:
        low, high: bytes.
        sources: where each end was published, or how it was measured.
    """

    low: int
    high: int
    sources: tuple[str, ...]

    @property
    def interval(self) -> Interval:
        """With its middle."""
        return between(self.low, self.high)


CONTEXT = MeasuredRange(
    low=256 * MIB,
    high=GIB,
    sources=(
        "https://github.com/invoke-ai/InvokeAI/issues/9413: 256 MiB, RTX 3090, torch 2.7.1+cu128",
        "https://github.com/unslothai/unsloth-zoo/pull/1053: 426 MiB, RTX 6000 Ada, torch "
        "2.10.0+cu130",
        "stas00/ml-engineering@744d01e1 training/performance/README.md: 0.47 GiB, A100-80GB, torch "
        "2.1.1+cu121; 0.90 and 0.92 GiB where every kernel is loaded at start "
        "(CUDA_MODULE_LOADING=EAGER)",
    ),
)
"""A CUDA context, per process, of a GPU that nobody named; the GPU table has its own range for each
that it lists."""

NCCL = MeasuredRange(
    low=GIB // 4,
    high=2 * GIB,
    sources=(
        "https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/env.html#nccl-buffsize: 4 MiB a "
        "buffer, channel and peer, which adds up to some hundred MiB at least",
        "https://github.com/NVIDIA/nccl/issues/1685: 1.06 GB with the context, 8 x H100, before "
        "the first all-to-all",
        "stas00/ml-engineering@744d01e1 training/performance/README.md: 0.55 to 2.00 GiB over the "
        "first barrier of 2 GPUs",
        "https://github.com/NVIDIA/nccl/issues/864: about 1.6 GB after one communicator's first "
        "all-reduce",
    ),
)
"""NCCL's buffers of a training process, all communicators together. They grow with links
(channels), not with ranks beyond two nodes. All-to-all takes more: 4.34 GB in nccl#1685."""

PROCESS = MeasuredRange(
    low=380 * MIB,
    high=2_056_600 * 1024 + 144 * MIB,
    sources=(
        "measured, python 3.11: torch 2.13, transformers 5.23's Trainer and DeepSpeed 0.19.8 "
        "imported hold 278 MiB of anonymous memory, 139 MiB more than torch alone",
        "https://github.com/pytorch/pytorch/issues/113326: 438,632 to 2,056,600 KiB resident with "
        "a CUDA tensor, against 322,040 without (RTX 3090, torch 2.2)",
        "https://github.com/pytorch/pytorch/issues/12873: 1,904,088 KiB resident with CUDA",
    ),
)
"""Host memory of one rank's process without a tensor: Python, libraries, CUDA's driver."""

WORKER = MeasuredRange(
    low=0,
    high=278 * MIB,
    sources=(
        "measured: a forked worker shares its parent's memory and copies, at most, the 278 MiB "
        "that a process with torch, transformers and DeepSpeed holds (reference counts are "
        "written to)",
    ),
)
"""Host memory of one worker process of a data loader, its batches apart."""

_PAGE, _STRUCT_PAGE = 4096, 64
"""The kernel describes each page of 4 KiB in 64 bytes (Documentation/mm/vmemmap_dedup.rst of
Linux): 1/64 of what was bought is gone before the first process runs."""

_SAMPLE_TENSORS = 3  # token ids, mask and labels, int64 each
_BATCHES_ON_GPU = 2  # the one in use and the next, which accelerate's loader copies ahead
_TOKEN_BYTES = 8


def context(gpu: Gpu | None) -> Interval:
    """The context of one process on a GPU."""
    return between(*gpu.context_bytes) if gpu else CONTEXT.interval


def of_gpu(gpu: Gpu | None, world_size: int) -> Interval:
    """Memory of a GPU that PyTorch does not count: the context, and NCCL where there are peers."""
    own = context(gpu)
    nccl = NCCL.interval if world_size > 1 else NOTHING
    low, high = own.low + nccl.low, own.high + nccl.high
    return between(low, high)


def of_cluster(cluster: Cluster) -> Interval:
    """Memory of a GPU that PyTorch does not count: measured there, or as published.

    Of a profile that knows the context alone, NCCL is what was published.
    """
    usual = of_gpu(cluster.gpu, cluster.world_size)
    if cluster.measured is None:
        return usual
    own = cluster.measured.outside_of(cluster.world_size, cluster.nodes)
    if own is not None:
        return own.interval
    alone = cluster.measured.outside_of(1, 1)
    if alone is None:
        return usual
    low, high = alone.low + NCCL.low, alone.high + NCCL.high
    return between(low, high)


def least_and_most(gpu: Gpu | None, world_size: int) -> tuple[int, int]:
    """Ends of ``of_gpu``: on which devices a run is replayed."""
    found = of_gpu(gpu, world_size)
    return found.low, found.high


def of_host(
    host_memory: int,
    ranks: int,
    *,
    workers: int = 0,
    batches: int = 0,
    batch_bytes: int = 0,
    process: Interval = PROCESS.interval,
) -> Interval:
    """Memory that a node needs beside the tensors of its ranks.

    Args:
        host_memory: of the node; part of it describes the rest.
        ranks: processes of the job on the node.
        workers: of each rank's data loader.
        batches: that each worker has ready (``prefetch_factor``).
        batch_bytes: of one batch.
        process: of each of them, without its tensors.
    """
    pages = ceil_div(host_memory, _PAGE) * _STRUCT_PAGE
    loaded = workers * (batches * batch_bytes)
    low = ranks * process.low
    high = ranks * (process.high + workers * WORKER.high + loaded) + pages
    return between(low, high)


def batch_bytes(micro_batch: int, seq_len: int) -> int:
    """Bytes of one batch of text: ids, mask and labels."""
    return micro_batch * seq_len * _SAMPLE_TENSORS * _TOKEN_BYTES


def batches_on_gpu(micro_batch: int, seq_len: int) -> int:
    """Bytes of the batches that a rank holds on its GPU."""
    return _BATCHES_ON_GPU * batch_bytes(micro_batch, seq_len)
