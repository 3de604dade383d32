"""How a rank with real tensors starts: its device, its process group, its pinned memory."""

from typing import Any

import deepspeed
import torch
from deepspeed.accelerator import get_accelerator

from zero_sizer.dryrun.launched import cpu
from zero_sizer.dryrun.measure import PinnedStorages


def start(
    local_rank: int, *, address: str = "127.0.0.1", **group: Any
) -> tuple[PinnedStorages | None, str]:
    """Join the process group.

    Args:
        local_rank: the device to take.
        address: this host's, at which a CPU rank is reached.
        group: arguments of ``deepspeed.init_distributed``; its backend is the accelerator's own
            where they name none.

    Returns:
        Pin requests on the CPU accelerator (None on a GPU), and the device's name.
    """
    accelerator = get_accelerator()
    accelerator.set_device(local_rank)
    on_cpu = accelerator.device_name() == "cpu"
    if on_cpu:
        cpu.prepare(accelerator, address)
    deepspeed.init_distributed(
        **{"dist_backend": accelerator.communication_backend_name(), **group}
    )
    torch.manual_seed(0)
    if not on_cpu:
        return None, str(torch.cuda.get_device_name())
    pinned = PinnedStorages()
    pinned.install(accelerator)
    return pinned, "cpu"
