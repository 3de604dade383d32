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

from zero_sizer.units import GIB
from zero_sizer.witnesses.simulated import cuda_tensors
from zero_sizer.witnesses.simulated.accelerator import Event, Stream
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
    for module in (torch.cuda.memory, torch.cuda.nvtx, torch.cuda.random):
        for attribute in answers:
            if hasattr(module, attribute):
                patches.set(module, attribute, answers[attribute])
    patches.set(torch.cuda.nccl, "version", _always((0, 0, 0)))
    patches.set(torch._C, "_cuda_getDeviceCount", lambda: local_world_size)
    cuda_tensors.install(patches)
    try:
        yield
    finally:
        patches.undo()


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
    stream = Stream()
    nothing = (
        "_lazy_init init set_device synchronize manual_seed manual_seed_all seed seed_all "
        "set_rng_state set_rng_state_all ipc_collect reset_accumulated_memory_stats "
        "set_per_process_memory_fraction range_push range_pop mark _record_memory_history "
        "_dump_snapshot"
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
        "Stream": Stream,
        "Event": Event,
        "is_current_stream_capturing": _always(False),
        "can_device_access_peer": _always(True),
        "get_arch_list": lambda: ["sm_{}{}".format(*_CAPABILITY)],
        "utilization": _always(0),
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
        "memory_summary": lambda *args, **kwargs: _summary(stats()),
        "memory_snapshot": lambda *args: [],
        "memory_cached": lambda *args: tracker.reserved(GPU),
        "max_memory_cached": lambda *args: tracker.device_peak_reserved(),
        "reset_max_memory_cached": reset,
        "reset_peak_memory_stats": reset,
        "reset_max_memory_allocated": reset,
        "empty_cache": lambda: tracker.empty_cache(),
        "memory_stats": stats,
        "mem_get_info": lambda *args: (capacity - tracker.reserved(GPU), capacity),
    }


def _summary(stats: dict[str, int]) -> str:
    return "\n".join(f"{name:<32} {number / GIB:>10.2f} GiB" for name, number in stats.items())
