"""The questions scripts ask ``torch.cuda``, answered for the simulated GPU.

A script that says ``cuda`` means the rank's GPU: the device is renamed on the way into an operator
(mode.py), and the module's functions are replaced by these. What they do not cover still raises
torch's own error, which says that there is no CUDA.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import torch

from zero_sizer.models.sources.advice import without_advice
from zero_sizer.simulator.accelerator import Event, Stream
from zero_sizer.simulator.patches import cuda_tensors
from zero_sizer.simulator.tracker import GPU, Tracker
from zero_sizer.simulator.undo import Patches
from zero_sizer.units import GIB

_CUDA = "13.0"  # PyTorch 2.13's default build
_CAPABILITY = (9, 0)  # of a GPU that nobody named: everything scripts ask for is there


@contextmanager
def cuda_answers(
    accelerator: Any,
    *,
    name: str,
    capacity: int,
    local_world_size: int,
    capability: tuple[int, int] | None = None,
) -> Iterator[None]:
    """``torch.cuda`` speaks of the simulated GPU.

    Args:
        accelerator: DeepSpeed's; its tracker answers memory questions.
        name: of the GPU.
        capacity: its memory in bytes.
        local_world_size: GPUs of the node.
        capability: compute capability of the GPU, where it is known.
    """
    patches = Patches()
    properties = _properties(name, capacity, capability or _CAPABILITY)
    answers = {
        **_constants(properties, local_world_size),
        **_streams(accelerator),
        **_memory(accelerator.tracker, capacity),
    }
    for attribute, answer in answers.items():
        patches.set(torch.cuda, attribute, answer)
    for module in (torch.cuda.memory, torch.cuda.nvtx, torch.cuda.random):
        for attribute in answers:
            if hasattr(module, attribute):
                patches.set(module, attribute, answers[attribute])
    patches.set(torch.cuda.nccl, "version", _always((0, 0, 0)))
    patches.set(torch._C, "_cuda_getDeviceCount", lambda: local_world_size)
    # torch's compiler takes these at import, where torch.cuda is available.
    patches.set(torch._C, "_cuda_getCurrentRawStream", _always(0))
    patches.set(torch._C, "_cuda_getCurrentStream", _always((0, 0, 1)))
    cuda_tensors.install(patches, accelerator)
    if torch.version.cuda is None:  # asked before tf32 and bf16 are
        _import_bitsandbytes()
        patches.set(torch.version, "cuda", _CUDA)
    try:
        yield
    finally:
        patches.undo()


def _import_bitsandbytes() -> None:
    """Imports it where it is, before it could look for a library of CUDA's version in vain."""
    without_advice()
    try:
        import_module("bitsandbytes")
    except Exception:  # whoever needs it is told; a half of it would tell something else
        for name in [name for name in sys.modules if name.partition(".")[0] == "bitsandbytes"]:
            del sys.modules[name]


def _always(value: Any) -> Callable[..., Any]:
    return lambda *args, **kwargs: value


def _properties(name: str, capacity: int, capability: tuple[int, int]) -> SimpleNamespace:
    """``torch.cuda.get_device_properties``: limits are those of NVIDIA's data-centre GPUs."""
    return SimpleNamespace(
        name=name,
        total_memory=capacity,
        major=capability[0],
        minor=capability[1],
        multi_processor_count=132 if capability >= _CAPABILITY else 108,
        warp_size=32,
        max_threads_per_multi_processor=2048,
        max_threads_per_block=1024,
        regs_per_multiprocessor=65536,
        shared_memory_per_block=48 << 10,
        shared_memory_per_block_optin=(227 if capability >= _CAPABILITY else 163) << 10,
        shared_memory_per_multiprocessor=(228 if capability >= _CAPABILITY else 164) << 10,
        L2_cache_size=(50 if capability >= _CAPABILITY else 40) << 20,
        is_integrated=0,
        is_multi_gpu_board=0,
        gcnArchName="",
        uuid="GPU-00000000-0000-0000-0000-000000000000",
        pci_bus_id=0,
        pci_device_id=0,
        pci_domain_id=0,
    )


def _streams(accelerator: Any) -> dict[str, Any]:
    names = ("current_stream", "default_stream", "stream", "set_stream")
    return {name: getattr(accelerator, name) for name in names} | {
        "Stream": Stream,
        "Event": Event,
    }


def _constants(properties: SimpleNamespace, local_world_size: int) -> dict[str, Any]:
    capability = (properties.major, properties.minor)
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
        "get_device_name": _always(properties.name),
        "get_device_capability": _always(capability),
        "get_device_properties": _always(properties),
        "is_bf16_supported": _always(True),
        "is_current_stream_capturing": _always(False),
        "can_device_access_peer": _always(True),
        "get_arch_list": lambda: ["sm_{}{}".format(*capability)],
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
        return memory_stats(tracker)

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
    told = {name: number for name, number in stats.items() if name.endswith(_TOLD)}
    return "\n".join(f"{name:<32} {number / GIB:>10.2f} GiB" for name, number in told.items())


_TOLD = tuple(
    f"{what}_bytes.all.{when}" for what in ("allocated", "reserved") for when in ("current", "peak")
)
_COUNTS = ("allocation", "segment", "active", "inactive_split")
_BYTES = ("allocated", "reserved", "active", "inactive_split", "requested")


def memory_stats(tracker: Tracker) -> dict[str, int]:
    """``torch.cuda.memory_stats``: every key that it has; 0 for what is not followed here."""
    what = (*_COUNTS, *(f"{name}_bytes" for name in _BYTES))
    found = {
        f"{name}.{pool}.{when}": 0
        for name in what
        for pool in ("all", "large_pool", "small_pool")
        for when in ("current", "peak", "allocated", "freed")
    }
    for name in ("oversize_allocations", "oversize_segments"):
        found.update({f"{name}.{when}": 0 for when in ("current", "peak", "allocated", "freed")})
    for name in ("alloc_retries", "ooms", "sync_all_streams", "device_alloc", "device_free"):
        found[f"num_{name}"] = 0
    found["max_split_size"] = -1
    for name in ("allocated", "active", "requested"):
        found[f"{name}_bytes.all.current"] = tracker.live(GPU)
        found[f"{name}_bytes.all.peak"] = tracker.device_peak(GPU)
    found["reserved_bytes.all.current"] = tracker.reserved(GPU)
    found["reserved_bytes.all.peak"] = tracker.device_peak_reserved()
    return found
