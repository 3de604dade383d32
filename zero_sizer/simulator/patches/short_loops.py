"""DeepSpeed's loops over every rank, made short: they build views, which cost time and no memory.

ZeRO-3 slices each gathered or scattered buffer once per rank of the job, for every module of
every step. At a thousand ranks that is nearly all the time a simulation takes. It also asks each
module for its own parameters a dozen times a pass. The functions replaced here allocate what
DeepSpeed's allocate, in the same order; a test holds the two against each other at 64 ranks.
Versions that were not compared run DeepSpeed's own loops.
"""

import builtins
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from zero_sizer.simulator.undo import Patches
from zero_sizer.units import ceil_div

COMPARED_VERSIONS = ("0.19.8",)


def install(patches: Patches, rank: int) -> None:
    """Replaces the loops of the DeepSpeed in this process, if its version was compared.

    Args:
        patches: remembers what stood there.
        rank: whose view of a gathered buffer is needed.
    """
    import deepspeed
    from deepspeed.runtime.comm import coalesced_collectives
    from deepspeed.runtime.zero import (
        parameter_offload,
        partition_parameters,
        partitioned_param_coordinator,
        stage3,
    )

    if deepspeed.__version__.split("+")[0] not in COMPARED_VERSIONS:
        return
    patches.set(partition_parameters, "range", _gather_range(rank + 1))
    handle = _short_handle(partition_parameters)
    patches.set(partition_parameters, "AllGatherCoalescedHandle", handle)
    for module in (coalesced_collectives, stage3):
        patches.set(module, "reduce_scatter_coalesced", reduce_scatter_coalesced)
    params_of = _params_of(partitioned_param_coordinator.iter_params)
    for module in (partitioned_param_coordinator, parameter_offload):
        patches.set(module, "iter_params", params_of)


def _params_of(original: Callable[..., Iterable[Any]]) -> Callable[..., Iterable[Any]]:
    """``iter_params`` that reads a module's own parameters without torch's walk over modules."""

    def iter_params(module: Any, recurse: bool = False) -> Iterable[Any]:
        if recurse:
            return original(module, recurse)
        own = {id(param): param for param in module._parameters.values() if param is not None}
        external = module.ds_external_parameters()
        return [*own.values(), *(param for _, param in external)] if external else own.values()

    return iter_params


def _gather_range(needed: int) -> Any:
    """``range`` that stops at ``needed`` where a gather slices its buffer for every rank."""

    def short_range(*bounds: int) -> range:
        if len(bounds) == 1 and sys._getframe(1).f_code.co_name == "_all_gather_dtype":
            return builtins.range(min(bounds[0], needed))
        return builtins.range(*bounds)

    return short_range


def _short_handle(module: Any) -> type:
    original = module.AllGatherCoalescedHandle
    available = module.ZeroParamStatus.AVAILABLE

    class ShortHandle(original):  # type: ignore[misc,valid-type]
        """DeepSpeed's handle; each parameter is one allocation instead of a concatenation."""

        def __init__(
            self,
            allgather_handle: Any,
            params: Sequence[Any],
            partitions: Any,
            world_size: int,
            **options: Any,
        ) -> None:
            if options.get("use_secondary_tensor") and partitions:
                partitions = _all_slices(partitions[0], world_size)
            super().__init__(allgather_handle, params, partitions, world_size, **options)

        def wait(self, handle_dependency: bool = True) -> None:
            if self.quantization or self.use_secondary_tensor or vars(self)["complete"]:
                super().wait(handle_dependency)
                return
            self.allgather_handle.wait()
            first = self.partitions[0]
            for param in self.params:
                gathered = first.new_empty(param.ds_numel).view(param.ds_shape)
                param.data = gathered.to(param.ds_tensor.dtype)
                param.ds_status = available
            self.complete = True
            if not handle_dependency:  # DeepSpeed keeps the flat buffer until free_buffer()
                original.data_buffer.append([first])

    return ShortHandle


def _all_slices(first: Any, world_size: int) -> list[Any]:
    size, flat = first.numel(), first._base
    return [flat.narrow(0, size * rank, size) for rank in builtins.range(world_size)]


@torch.no_grad()  # type: ignore[untyped-decorator]  # torch is not followed by mypy
def reduce_scatter_coalesced(tensors: Sequence[Any], group: Any = None) -> list[Any]:
    """DeepSpeed's function (runtime/comm/coalesced_collectives.py), slicing for this rank only."""
    from deepspeed import comm as dist

    world_size, rank = dist.get_world_size(group), dist.get_rank(group)
    sizes = [ceil_div(tensor.numel(), world_size) for tensor in tensors]
    if len(tensors) == 1 and tensors[0].numel() % world_size == 0:
        flat = tensors[0].view(-1)
    else:
        padding = [
            tensor.new_empty(missing)
            for tensor, size in zip(tensors, sizes, strict=True)
            for missing in _padding(tensor.numel(), size, world_size)
        ]
        flat = tensors[0].new_empty(sum(sizes) * world_size)
        del padding
    flat.div_(world_size)
    mine = flat.narrow(0, rank * sum(sizes), sum(sizes))
    dist.reduce_scatter_fn(mine, flat, group=group, async_op=False)
    results, offset = [], 0
    for tensor, size in zip(tensors, sizes, strict=True):
        present = min(max(tensor.numel() - rank * size, 0), size)
        results.append(mine.narrow(0, offset, present))
        offset += size
    return results


def _padding(numel: int, size: int, world_size: int) -> list[int]:
    """Elements missing from the slices of the last ranks, one number for each such rank."""
    full = numel // size
    last = numel - full * size
    empty = world_size - full - (1 if last else 0)
    return ([size - last] if last else []) + [size] * empty
