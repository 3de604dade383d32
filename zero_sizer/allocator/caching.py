"""PyTorch's CUDA caching allocator, replayed: what a job reserves beside what it allocates.

The algorithm is ``DeviceCachingAllocator`` of c10/cuda/CUDACachingAllocator.cpp. Its text was read
at pytorch commit 001074d2 (2025); constants and options come from the headers of torch 2.13.0
(c10/core/AllocatorConfig.h). What changed in between was settled by replay: the allocator library
of the torch 2.13.0+cu130 wheel (libc10_cuda.so) ran random traces over a stand-in for the CUDA
runtime that only counts bytes, and this model gives the same figures after every event. The
recordings are tests/data/allocator_recorded.json; scripts/allocator_oracle makes them anew.

What that cannot show needs a GPU. A driver may hand out a freed address again, which decides
between cached blocks of equal size, and ``cudaMalloc`` may fail before the device is full. The
recording that would check it: ``memory_stats()`` and ``torch.cuda.memory._snapshot()`` of a
``--how solo`` run, whose trace is replayed here.

Not modelled: ``record_stream`` (frees that wait for another stream; active equals allocated here),
the private pools of CUDA graphs, user memory pools, IPC, ``PYTORCH_NO_CUDA_MEMORY_CACHING``.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from zero_sizer.allocator.blocks import Block, Device, Pool, Segment, segments_of
from zero_sizer.allocator.segments import SegmentStore, TraceEntry, merge
from zero_sizer.allocator.settings import MIN_BLOCK_SIZE, SMALL_SIZE, AllocatorSettings
from zero_sizer.util.records import dataclass


class DeviceOutOfMemoryError(Exception):
    """Neither a cached block nor new memory, even with every free segment given back.

    Attributes:
        requested: bytes asked for.
        allocated, reserved: bytes at that moment.
        device_free: bytes the device still had.
    """

    def __init__(self, *, requested: int, allocated: int, reserved: int, device_free: int) -> None:
        super().__init__(
            f"{requested} bytes asked for, {allocated} allocated, {reserved} reserved, "
            f"{device_free} free"
        )
        self.requested = requested
        self.allocated = allocated
        self.reserved = reserved
        self.device_free = device_free


class MemoryPoint(NamedTuple):
    """The allocator at one moment, in bytes (PyTorch's words).

    Attributes:
        allocated: handed out, after rounding to blocks.
        reserved: held from the device.
        active: handed out or waiting for a stream; equals allocated here.
        inactive_split: free, but in a segment that something else keeps (PyTorch counts none of
            this in expandable segments).
        largest_free_block: the largest cached block.
    """

    allocated: int = 0
    reserved: int = 0
    active: int = 0
    inactive_split: int = 0
    largest_free_block: int = 0


class MemoryEvent(Protocol):
    """One event of a trace; ``kind`` is ``alloc``, ``free`` or ``empty_cache``."""

    @property
    def kind(self) -> str: ...  # noqa: D102
    @property
    def block(self) -> int: ...  # noqa: D102
    @property
    def num_bytes(self) -> int: ...  # noqa: D102
    @property
    def stream(self) -> int: ...  # noqa: D102


@dataclass(frozen=True, kw_only=True)
class Replay:
    """A trace seen through the allocator.

    Attributes:
        points: one per event, if asked for.
        peak: the highest value of each figure, not all at one moment.
        end: after the last event replayed.
        out_of_memory: what stopped the replay, or None.
        stopped_at: index of the event that did not fit, or the number of events.
        retries: device allocations tried again after every cached segment was given back.
        allocator: in its last state, for a snapshot.
    """

    points: list[MemoryPoint]
    peak: MemoryPoint
    end: MemoryPoint
    out_of_memory: DeviceOutOfMemoryError | None
    stopped_at: int
    retries: int
    allocator: "CachingAllocator"


class CachingAllocator:
    """The allocator of one device; feed it allocations and frees in order.

    Args:
        settings: PyTorch's options.
        capacity: bytes the device can hand out: its memory less context and other users; None is no
            limit.
        device_total: bytes ``cudaMemGetInfo`` calls total, which a memory fraction refers to; the
            capacity if None.
        observer: called with each ``TraceEntry``.
    """

    def __init__(
        self,
        settings: AllocatorSettings | None = None,
        *,
        capacity: int | None = None,
        device_total: int | None = None,
        observer: Callable[[TraceEntry], None] | None = None,
    ) -> None:
        self.settings = settings or AllocatorSettings()
        self.segments = SegmentStore(self.settings, Device(capacity, device_total), observer)
        self.live: dict[int, Block | None] = {}
        self.retries = 0
        self._observer = observer
        self._allocated = self._inactive_split = 0
        self._peak_allocated = self._peak_inactive_split = self._peak_largest = 0
        if self.settings.per_process_memory_fraction < 1.0:
            self.set_memory_fraction(self.settings.per_process_memory_fraction)

    def set_memory_fraction(self, fraction: float) -> None:
        """``set_per_process_memory_fraction``; also arms the garbage collection threshold."""
        self.segments.limit = int(fraction * self.segments.device.total)

    def point(self) -> MemoryPoint:
        """The present figures."""
        largest = max(self.segments.small.largest(), self.segments.large.largest())
        return MemoryPoint(
            self._allocated, self.segments.reserved, self._allocated, self._inactive_split, largest
        )

    @property
    def peak(self) -> MemoryPoint:
        """The highest value of each figure so far."""
        return MemoryPoint(
            allocated=self._peak_allocated,
            reserved=self.segments.peak_reserved,
            active=self._peak_allocated,
            inactive_split=self._peak_inactive_split,
            largest_free_block=self._peak_largest,
        )

    def apply(self, event: MemoryEvent) -> None:
        """One event of a trace; see ``allocate``, ``free`` and ``empty_cache``."""
        if event.kind == "alloc":
            self.allocate(event.block, event.num_bytes, event.stream)
        elif event.kind == "free":
            self.free(event.block)
        elif event.kind == "empty_cache":
            self.segments.release_all()
        else:
            raise ValueError(f"unknown kind of event {event.kind!r}")

    def allocate(self, owner: int, num_bytes: int, stream: int = 0) -> None:
        """Serves a request; 0 bytes take no memory.

        Raises:
            DeviceOutOfMemoryError: the request does not fit.
            ValueError: ``owner`` already holds memory, or a negative size.
        """
        if owner in self.live or num_bytes < 0:
            raise ValueError(f"allocation {owner} of {num_bytes} bytes: negative, or already live")
        if num_bytes == 0:
            self.live[owner] = None
            return
        size = self.settings.round_size(num_bytes)
        pool = self.segments.small if size <= SMALL_SIZE else self.segments.large
        block = self._cached_block(pool, size, stream) or self._new_block(pool, size, stream)
        if block is None:
            raise self._out_of_memory(num_bytes, size, stream)
        self._hand_out(block, size, num_bytes, owner)

    def free(self, owner: int) -> None:
        """Takes an allocation back and merges its block with free neighbours.

        Raises:
            ValueError: ``owner`` holds nothing.
        """
        if owner not in self.live:
            raise ValueError(f"allocation {owner} is not live")
        block = self.live.pop(owner)
        if block is None:
            return
        if self._observer is not None:
            self._observer(_entry("free_requested", block, owner))
            self._observer(_entry("free_completed", block, owner))
        self._allocated -= block.size
        block.owner = None
        merged = merge(block, block.prev) + merge(block, block.next)
        block.pool.add(block)
        if block.size > self._peak_largest:
            self._peak_largest = block.size
        if block.segment is None:
            self._change_inactive_split((block.size if block.is_split else 0) - merged)

    def empty_cache(self) -> None:
        """``torch.cuda.empty_cache``: unused segments and pages go back to the device."""
        self.segments.release_all()

    def snapshot(self) -> list[Segment]:
        """Every stretch of reserved memory with its blocks, by address."""
        held = [block for block in self.live.values() if block is not None]
        cached = self.segments.small.cached() + self.segments.large.cached()
        return segments_of(held + cached)

    def _cached_block(self, pool: Pool, size: int, stream: int) -> Block | None:
        """``get_free_block``: best fit, kept off oversize blocks."""
        if self.segments.collects:
            pool.searches += 1
        found = pool.best(stream, size)
        if found is None:
            return None
        if self.settings.expandable_segments:  # at the growing end, counts with what it may become
            for block in pool.fitting(stream, size):
                if block is not found and block.expandable_size() >= found.expandable_size():
                    break
                found = block
        oversize = self.settings.max_split_size
        if size < oversize <= found.size:
            return None
        if size >= oversize and found.size >= size + self.settings.max_non_split_rounding_size:
            return None
        pool.remove(found)
        return found

    def _new_block(self, pool: Pool, size: int, stream: int) -> Block | None:
        """New memory: at once, after freeing oversize blocks, or after freeing all that is free."""
        segments = self.segments
        if segments.refuses(size):
            return None
        if segments.collects:
            segments.collect_garbage()
        block = segments.take(pool, size, stream)
        if block is None and segments.release_oversize(pool, size, stream):
            block = segments.take(pool, size, stream)
        if block is None:
            segments.release_all()
            self.retries += 1
            block = segments.take(pool, size, stream)
        return block

    def _hand_out(self, block: Block, size: int, requested: int, owner: int) -> None:
        """``alloc_found_block``: splits off what is not needed."""
        was_split = block.is_split
        if self._should_split(block, size):
            rest, block = block, block.part(block.address, size)
            rest.address += size
            rest.size -= size
            block.splice(rest.prev, rest)
            rest.pool.add(rest)
            if rest.size > self._peak_largest:
                self._peak_largest = rest.size
            change = -size if was_split else rest.size
        else:
            change = -block.size if was_split else 0
        if block.segment is None:
            self._change_inactive_split(change)
        block.owner = owner
        block.requested = requested
        self.live[owner] = block
        self._allocated += block.size
        if self._allocated > self._peak_allocated:
            self._peak_allocated = self._allocated
        if self._observer is not None:
            self._observer(_entry("alloc", block, owner))

    def _should_split(self, block: Block, size: int) -> bool:
        rest = block.size - size
        if block.pool.is_small or self.settings.expandable_segments:
            return rest >= MIN_BLOCK_SIZE
        return size < self.settings.max_split_size and rest > SMALL_SIZE

    def _out_of_memory(self, requested: int, size: int, stream: int) -> DeviceOutOfMemoryError:
        device = self.segments.device
        free = device.capacity - device.used
        if self._observer is not None:
            self._observer(TraceEntry("oom", free, size, stream))
        return DeviceOutOfMemoryError(
            requested=requested,
            allocated=self._allocated,
            reserved=self.segments.reserved,
            device_free=free,
        )

    def _change_inactive_split(self, change: int) -> None:
        self._inactive_split += change
        if self._inactive_split > self._peak_inactive_split:
            self._peak_inactive_split = self._inactive_split


def _entry(action: str, block: Block, owner: int) -> TraceEntry:
    return TraceEntry(action, block.address, block.requested, block.stream, owner)


def replay(
    events: Iterable[MemoryEvent],
    settings: AllocatorSettings | None = None,
    *,
    capacity: int | None = None,
    device_total: int | None = None,
    keep_points: bool = False,
    observer: Callable[[TraceEntry], None] | None = None,
) -> Replay:
    """Runs a trace of one device through a fresh allocator and stops where it runs out of memory.

    Raises:
        ValueError: the trace frees what is not live, allocates a number twice, or holds an unknown
            kind.
    """
    allocator = CachingAllocator(
        settings, capacity=capacity, device_total=device_total, observer=observer
    )
    points: list[MemoryPoint] = []
    error, count = None, 0
    for event in events:
        try:
            allocator.apply(event)
        except DeviceOutOfMemoryError as failure:
            error = failure
            break
        count += 1
        if keep_points:
            points.append(allocator.point())
    return Replay(
        points=points,
        peak=allocator.peak,
        end=allocator.point(),
        out_of_memory=error,
        stopped_at=count,
        retries=allocator.retries,
        allocator=allocator,
    )
