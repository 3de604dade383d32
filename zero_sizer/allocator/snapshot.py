"""PyTorch memory snapshots written from a trace, for ``torch.cuda._memory_viz``.

The shape is that of ``torch.cuda.memory._snapshot()`` (its docstring in torch/cuda/memory.py, torch
2.13.0). Frames stand for where an allocation happened: training phase, module, tensor; a real
snapshot has Python frames there.
"""

import pickle
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from zero_sizer.allocator.blocks import Block, Segment
from zero_sizer.allocator.caching import CachingAllocator, DeviceOutOfMemoryError, MemoryEvent
from zero_sizer.allocator.segments import TraceEntry
from zero_sizer.allocator.settings import AllocatorSettings
from zero_sizer.util import files

Frames = tuple[str, ...]
_DEFAULT_POOL = (0, 0)


def build_snapshot(
    events: Iterable[MemoryEvent],
    settings: AllocatorSettings | None = None,
    *,
    capacity: int | None = None,
    frames_of: Callable[[MemoryEvent], Frames] = lambda event: (),
) -> dict[str, Any]:
    """A snapshot of one device after ``events``, with the whole history.

    Args:
        events: the trace of one device, in order; it ends early where the device is full.
        settings: PyTorch's allocator options.
        capacity: bytes the device can hand out, None for no limit.
        frames_of: names for an allocation, innermost first, e.g. ``("forward", "layers.0.mlp")``.

    Returns:
        The dictionary that ``_memory_viz`` reads: ``segments``, ``device_traces``,
        ``allocator_settings``.

    Raises:
        ValueError: see ``allocator.replay``.
    """
    history = _History(frames_of)
    allocator = CachingAllocator(settings, capacity=capacity, observer=history.note)
    for event in events:
        history.enter(event)
        try:
            allocator.apply(event)
        except DeviceOutOfMemoryError:
            break
    return {
        "segments": [_segment(segment, history.frames) for segment in allocator.snapshot()],
        "device_traces": [history.entries],
        "allocator_settings": _allocator_settings(allocator.settings),
    }


def write_snapshot(path: Path, snapshot: Mapping[str, Any]) -> None:
    """Writes the pickle that ``python -m torch.cuda._memory_viz`` and pytorch.org/memory_viz open.

    Raises:
        InputError: the file cannot be written.
    """
    files.write(path, [pickle.dumps(dict(snapshot), protocol=4)])


class _History:
    """Turns the allocator's trace entries into PyTorch's, in order.

    Attributes:
        entries: ``TraceEntry`` dictionaries.
        frames: number of an allocation -> its frames.
    """

    def __init__(self, frames_of: Callable[[MemoryEvent], Frames]) -> None:
        self.entries: list[dict[str, Any]] = []
        self.frames: dict[int, list[dict[str, Any]]] = {}
        self._frames_of = frames_of
        self._current: list[dict[str, Any]] = []
        self._made: dict[Frames, list[dict[str, Any]]] = {}

    def enter(self, event: MemoryEvent) -> None:
        """Remembers which event the next trace entries belong to."""
        if event.kind == "alloc":
            self._current = self._shared(self._frames_of(event))
            self.frames[event.block] = self._current
        else:
            self._current = self.frames.get(event.block, [])

    def note(self, entry: TraceEntry) -> None:
        """Appends one entry; time counts entries, as simulated runs have no clock."""
        record: dict[str, Any] = {
            "action": entry.action,
            "size": entry.num_bytes,
            "stream": entry.stream,
            "pool_id": _DEFAULT_POOL,
            "time_us": len(self.entries),
            "compile_context": "N/A",
            "user_metadata": "",
            "frames": self._current,
        }
        record["device_free" if entry.action == "oom" else "addr"] = entry.address
        self.entries.append(record)

    def _shared(self, names: Frames) -> list[dict[str, Any]]:
        """One list per distinct stack: pickle then stores it once."""
        if names not in self._made:
            self._made[names] = [{"filename": "simulated", "line": 0, "name": n} for n in names]
        return self._made[names]


def _segment(segment: Segment, frames: Mapping[int, list[dict[str, Any]]]) -> dict[str, Any]:
    held = [block for block in segment.blocks if block.owner is not None]
    used = sum(block.size for block in held)
    return {
        "device": 0,
        "address": segment.address,
        "total_size": segment.size,
        "allocated_size": used,
        "active_size": used,
        "requested_size": sum(block.requested for block in held),
        "stream": segment.stream,
        "segment_type": "large" if segment.is_large else "small",
        "segment_pool_id": _DEFAULT_POOL,
        "is_expandable": segment.is_expandable,
        "frames": [],
        "blocks": [_block(block, frames) for block in segment.blocks],
    }


def _block(block: Block, frames: Mapping[int, list[dict[str, Any]]]) -> dict[str, Any]:
    held = block.owner is not None
    return {
        "address": block.address,
        "size": block.size,
        "requested_size": block.requested if held else 0,
        "state": "active_allocated" if held else "inactive",
        "frames": frames.get(block.owner, []) if block.owner is not None else [],
    }


def _allocator_settings(settings: AllocatorSettings) -> dict[str, Any]:
    return {
        "max_split_size": settings.max_split_size,
        "garbage_collection_threshold": settings.garbage_collection_threshold,
        "expandable_segments": settings.expandable_segments,
        "roundup_power2_divisions": list(settings.roundup_power2_divisions),
    }
