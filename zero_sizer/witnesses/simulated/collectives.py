"""What scripts ask ``torch.distributed`` themselves, answered for a rank among silent peers.

The group is there before the script runs; peers hold the same objects as this rank.
"""

import importlib.util
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist

from zero_sizer.witnesses.simulated.undo import Patches


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
    _skip_padding(patches)
    try:
        yield
    finally:
        patches.undo()


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
