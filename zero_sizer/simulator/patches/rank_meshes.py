"""Groups of ranks beyond data parallelism: meshes of ranks, and what AutoTP's ranks compare."""

from typing import Any

from zero_sizer.simulator.undo import Patches


def install(patches: Patches) -> None:
    """Groups form as on real ranks; comparisons of values with silent peers pass."""
    import deepspeed.sequence.cross_entropy as loss
    from deepspeed.comm.torch import TorchBackend
    from torch.distributed import device_mesh

    patches.set(device_mesh, "init_device_mesh", _real_mesh(device_mesh.init_device_mesh))
    # Before the first forward, each AutoTP rank compares its batch with the group's first one.
    patches.set(TorchBackend, "broadcast_object_list", lambda *_, **__: None)
    patches.set(loss, "_validate_vocab_shard_bounds", _vocabulary)


def _real_mesh(original: Any) -> Any:
    """Torch reads the groups out of a tensor of ranks, which must hold its values."""
    from torch.utils._python_dispatch import _disable_current_modes

    def init_device_mesh(device_type: str, *args: Any, **kwargs: Any) -> Any:
        with _disable_current_modes():
            return original("cpu", *args, **kwargs)

    return init_device_mesh


def _vocabulary(
    local_vocab_size: int, vocab_start_index: int, vocab_end_index: int, tp_group: Any, device: Any
) -> int:
    """Rows of the whole vocabulary; the group's shards are as large as this rank's."""
    import deepspeed.comm as dist

    ranks = dist.get_world_size(tp_group) if tp_group is not None else 1
    return max(vocab_end_index, ranks * local_vocab_size)
