"""Rank r of N with silent peers: a process group whose collectives move nothing.

Gradients are not reduced and gathered parameters hold rubbish, but every buffer has its size.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def rank_environment(*, rank: int, world_size: int, local_world_size: int) -> dict[str, str]:
    """The variables a launcher gives rank ``rank``; nothing ever connects to the address.

    ``LOCAL_RANK`` is 0 on every rank: each sees its own device only, as with one visible device.
    """
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": str(local_world_size),
        "LOCAL_SIZE": str(local_world_size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29500",
    }


@contextmanager
def silent_peers(*, rank: int, world_size: int) -> Iterator[None]:
    """A torch process group of ``world_size`` whose other ranks do not exist."""
    import torch.distributed as dist
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=world_size)
    try:
        yield
    finally:
        dist.destroy_process_group()


def preload_accelerator() -> Any:
    """DeepSpeed's accelerator package, imported before DeepSpeed itself.

    ``import deepspeed`` asks for an accelerator at once and binds its operator builders, so the
    accelerator must be set before; but its package lies inside ``deepspeed``. A bare parent
    module stands in while it loads.
    """
    import importlib
    import importlib.machinery
    import types

    if "deepspeed" in sys.modules:
        return importlib.import_module("deepspeed.accelerator")
    spec = importlib.machinery.PathFinder.find_spec("deepspeed")
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError("No module named 'deepspeed'", name="deepspeed")
    bare = types.ModuleType("deepspeed")
    bare.__path__ = list(spec.submodule_search_locations)
    sys.modules["deepspeed"] = bare
    try:
        accelerator = importlib.import_module("deepspeed.accelerator")
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "deepspeed"]:
            if not name.startswith("deepspeed.accelerator"):
                del sys.modules[name]
    return accelerator
