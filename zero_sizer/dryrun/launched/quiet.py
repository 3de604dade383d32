"""A CPU rank at rest: gloo has let go of every tensor it was handed.

gloo's worker threads drop their reference to a collective's tensors some time after the caller
has its result, so a census right after a collective may find tensors that nobody owns. With one
worker thread for each group the work is done in order: when a barrier has begun, everything
before it has been let go.
"""

from typing import Any

import torch.distributed as dist
from torch.distributed import distributed_c10d


class _OneThread(dist.ProcessGroupGloo):  # type: ignore[misc]  # torch is not followed by mypy
    """gloo with a single worker thread instead of two, at the address of this host."""

    address = "127.0.0.1"

    def __init__(self, store: Any, rank: int, size: int, *, timeout: Any) -> None:
        options = dist.ProcessGroupGloo._Options()
        options._devices = [dist.ProcessGroupGloo.create_device(hostname=self.address)]
        options._threads = 1
        options._timeout = timeout
        super().__init__(store, rank, size, options)


def install(address: str) -> None:
    """Give every gloo group of this process one worker thread. Before any group is made.

    Args:
        address: this host's, at which other ranks reach this one.
    """
    _OneThread.address = address
    module: Any = distributed_c10d
    module.ProcessGroupGloo = _OneThread


def drain() -> None:
    """Wait until no group of this rank holds a tensor. Every rank has to call it."""
    for group in list(distributed_c10d._world.pg_map):
        dist.barrier(group=group)
