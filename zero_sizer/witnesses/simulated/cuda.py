"""The questions scripts ask ``torch.cuda``, answered for the simulated GPU.

A script that says ``cuda`` means the rank's GPU: the device is renamed on the way into an operator
(mode.py), and the module's functions are replaced by these. What they do not cover still raises
torch's own error, which says that there is no CUDA.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor

from zero_sizer.witnesses.simulated import device
from zero_sizer.witnesses.simulated.tracker import GPU, Tracker
from zero_sizer.witnesses.simulated.undo import Patches

_CAPABILITY = (9, 0)  # Hopper: everything scripts ask for is there


@contextmanager
def cuda_answers(
    tracker: Tracker, *, name: str, capacity: int, local_world_size: int
) -> Iterator[None]:
    """``torch.cuda`` speaks of the simulated GPU.

    Args:
        tracker: answers memory questions.
        name: of the GPU.
        capacity: its memory in bytes.
        local_world_size: GPUs of the node.
    """
    patches = Patches()
    answers = {**_constants(name, capacity, local_world_size), **_memory(tracker, capacity)}
    for attribute, answer in answers.items():
        patches.set(torch.cuda, attribute, answer)
    patches.set(torch._C, "_cuda_getDeviceCount", lambda: local_world_size)
    on_gpu = property(lambda tensor: tensor._fake_device.type == device.NAME)
    patches.set(FakeTensor, "is_cuda", on_gpu)
    patches.set(FakeTensor, "cuda", _to_gpu)
    patches.set(FakeTensor, "to", _to)
    patches.set(torch.nn.Module, "cuda", _to_gpu)
    try:
        yield
    finally:
        patches.undo()


def _to_gpu(thing: Any, *args: object, **kwargs: object) -> Any:
    return thing.to(device.NAME)


_TO = torch._C.TensorBase.to


def _to(tensor: Any, *args: Any, **kwargs: Any) -> Any:
    """``Tensor.to``: torch asks a CUDA guard for the device before any mode sees the call."""
    args = tuple(map(_renamed, args))
    return _TO(tensor, *args, **{name: _renamed(value) for name, value in kwargs.items()})


def _renamed(value: Any) -> Any:
    if isinstance(value, str) and value.split(":")[0] == "cuda":
        return torch.device(device.NAME, 0)
    if isinstance(value, torch.device) and value.type == "cuda":
        return torch.device(device.NAME, 0)
    return value


def _always(value: Any) -> Callable[..., Any]:
    return lambda *args, **kwargs: value


def _constants(name: str, capacity: int, local_world_size: int) -> dict[str, Any]:
    properties = SimpleNamespace(
        name=name,
        total_memory=capacity,
        major=_CAPABILITY[0],
        minor=_CAPABILITY[1],
        multi_processor_count=132,
    )
    stream = SimpleNamespace(
        wait_stream=_always(None), synchronize=_always(None), wait_event=_always(None)
    )
    nothing = (
        "_lazy_init init set_device synchronize manual_seed manual_seed_all seed seed_all "
        "set_rng_state set_rng_state_all ipc_collect reset_accumulated_memory_stats"
    )
    return {
        **{attribute: _always(None) for attribute in nothing.split()},
        "is_available": _always(True),
        "is_initialized": _always(True),
        "device_count": _always(local_world_size),
        "current_device": _always(0),
        "get_device_name": _always(name),
        "get_device_capability": _always(_CAPABILITY),
        "get_device_properties": _always(properties),
        "is_bf16_supported": _always(True),
        "current_stream": _always(stream),
        "default_stream": _always(stream),
        "stream": _always(nullcontext()),
        "device": _always(nullcontext()),
        "get_rng_state": lambda *args: torch.empty(0, dtype=torch.uint8),
        "get_rng_state_all": lambda: [],
        "initial_seed": _always(0),
    }


def _memory(tracker: Tracker, capacity: int) -> dict[str, Any]:
    def reset(*args: object) -> None:
        tracker.reset_device_peak()

    def stats(*args: object) -> dict[str, int]:
        return {
            "allocated_bytes.all.current": tracker.live(GPU),
            "allocated_bytes.all.peak": tracker.device_peak(GPU),
            "reserved_bytes.all.current": tracker.reserved(GPU),
            "reserved_bytes.all.peak": tracker.device_peak_reserved(),
        }

    return {
        "memory_allocated": lambda *args: tracker.live(GPU),
        "max_memory_allocated": lambda *args: tracker.device_peak(GPU),
        "memory_reserved": lambda *args: tracker.reserved(GPU),
        "max_memory_reserved": lambda *args: tracker.device_peak_reserved(),
        "reset_peak_memory_stats": reset,
        "reset_max_memory_allocated": reset,
        "empty_cache": lambda: tracker.empty_cache(),
        "memory_stats": stats,
        "mem_get_info": lambda *args: (capacity - tracker.reserved(GPU), capacity),
    }
