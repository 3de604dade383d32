"""Collectives that scripts call themselves, answered for a rank among silent peers.

The group is there before the script runs; peers hold the same objects as this rank.
"""

import importlib.util
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch.utils._python_dispatch import _disable_current_modes

from zero_sizer.simulator import values
from zero_sizer.simulator.undo import Patches


@contextmanager
def scripts_collectives() -> Iterator[None]:
    """Groups of any backend are silent ones, and objects are gathered without values."""
    patches = Patches()
    answers = {
        "init_process_group": _nothing,
        "destroy_process_group": _nothing,
        "monitored_barrier": _nothing,
        "new_group": _new_group(dist.new_group),
        "all_gather_object": _all_gather_object,
        "gather_object": _gather_object,
        "broadcast_object_list": _nothing,
        "scatter_object_list": _scatter_object_list,
    }
    for name, answer in answers.items():
        for module in (dist, dist.distributed_c10d):
            patches.set(module, name, answer)
    for name, of_peers in _OF_PEERS.items():
        for module in (dist, dist.distributed_c10d):
            patches.set(module, name, _with_values(getattr(dist, name), of_peers))
    _skip_padding(patches)
    try:
        yield
    finally:
        patches.undo()


def _with_values(original: Any, of_peers: Any) -> Any:
    """The collective, and small known values as equal peers would leave them."""
    signature = inspect.signature(original)

    def collective(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        given = bound.arguments
        done = _given_values(given)
        result = original(*args, **kwargs)
        if done is not None:
            of_peers(given, done)
        return result

    return collective


def _given_values(given: dict[str, Any]) -> Any:
    tensor = given.get("tensor", given.get("input_tensor", given.get("input")))
    known = values.of(tensor) if isinstance(tensor, torch.Tensor) else None
    if known is None:
        return None
    with _disable_current_modes():
        return known.clone()


def _reduced(given: dict[str, Any], value: Any) -> None:
    """A sum is of as many equal values as the group has ranks."""
    if given["op"] == dist.ReduceOp.SUM:
        with _disable_current_modes():
            value = value * dist.get_world_size(given.get("group"))
    values.keep(given["tensor"], value)


def _gathered_list(given: dict[str, Any], value: Any) -> None:
    for tensor in given["tensor_list"]:
        if tensor.shape == value.shape:
            values.keep(tensor, value)


def _gathered(given: dict[str, Any], value: Any) -> None:
    output = given["output_tensor"]
    with _disable_current_modes():
        repeated = value.reshape(-1).repeat(output.numel() // max(value.numel(), 1))
        if repeated.numel() == output.numel():
            values.keep(output, repeated.reshape(output.shape))


_OF_PEERS = {
    "all_reduce": _reduced,
    "reduce": _reduced,
    "all_gather": _gathered_list,
    "all_gather_into_tensor": _gathered,
}


def _nothing(*args: object, **kwargs: object) -> None:
    """Done already, or nothing to do."""


def _skip_padding(patches: Patches) -> None:
    """accelerate gathers shapes to pad to the longest; silent peers have this rank's."""
    name = "pad_across_processes"
    for module in ("accelerate.accelerator", "accelerate.utils", "accelerate.utils.operations"):
        if importlib.util.find_spec(module.partition(".")[0]) is not None:
            patches.set(importlib.import_module(module), name, lambda tensor, *_, **__: tensor)


def _new_group(original: Any) -> Any:
    signature = inspect.signature(original)

    def new_group(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.arguments["backend"] = "fake"
        bound.arguments.pop("pg_options", None)  # another backend's
        return original(*bound.args, **bound.kwargs)

    return new_group


def _all_gather_object(object_list: list[Any], obj: Any, group: Any = None) -> None:
    object_list[:] = [obj] * len(object_list)


def _gather_object(
    obj: Any, object_gather_list: list[Any] | None = None, *args: object, **kwargs: object
) -> None:
    if object_gather_list is not None:
        _all_gather_object(object_gather_list, obj)


def _scatter_object_list(
    scatter_object_output_list: list[Any],
    scatter_object_input_list: list[Any] | None = None,
    *args: object,
    **kwargs: object,
) -> None:
    if scatter_object_input_list:
        scatter_object_output_list[0] = scatter_object_input_list[dist.get_rank()]
