"""Lines of ours between a trainer's own, and the ranks of a run."""

import os

_INDENT = " " * 12


def say(text: str, rank: int = 0) -> None:
    """Print lines under one head, which names the rank where it is not the first."""
    head = f"zero-sizer: rank {rank}: " if rank else "zero-sizer: "
    print(head + f"\n{_INDENT}".join(text.splitlines()), flush=True)


def ranks() -> tuple[int, int, int]:
    """Rank, ranks and ranks of this node, of torch's process group or its launcher."""
    import torch.distributed as dist

    local = int(os.environ.get("LOCAL_WORLD_SIZE", 0))
    if dist.is_available() and dist.is_initialized():
        world_size = dist.get_world_size()
        return dist.get_rank(), world_size, min(local or world_size, world_size)
    world_size = int(os.environ.get("WORLD_SIZE", 1))
    return int(os.environ.get("RANK", 0)), world_size, min(local or world_size, world_size)
