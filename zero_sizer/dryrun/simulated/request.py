"""Requests to simulated ranks: what to run, and on which machine."""

from zero_sizer.dryrun.task import Task
from zero_sizer.simulator.device import NO_LIMIT
from zero_sizer.util.records import dataclass


@dataclass(frozen=True, kw_only=True)
class Request(Task):
    """A task as one rank of a job, with the machine that a real run finds around it.

    Attributes:
        rank: global rank to be.
        world_size: ranks of the job.
        local_world_size: ranks of a node.
        gpu: its name in the GPU table, or empty.
        gpu_bytes: memory of a GPU; what DeepSpeed sees as ``total_memory``.
        outside_bytes: what others take of it, least and most.
        blas_bytes: workspace that PyTorch gives cuBLAS in each thread; 0 where no GPU is named.
        host_bytes: memory of a node, for the percentage in DeepSpeed's log lines.
        keep_events: keep every allocation and free.
        short_loops: shorten DeepSpeed's loops over all ranks.
    """

    rank: int = 0
    world_size: int = 1
    local_world_size: int = 1
    gpu: str = ""
    gpu_bytes: int = NO_LIMIT
    outside_bytes: tuple[int, int] = (0, 0)
    blas_bytes: int = 0
    host_bytes: int = 0
    keep_events: bool = False
    short_loops: bool = True
