"""Pinned (page-locked) host memory, replayed through PyTorch's caching host allocator.

A request becomes the next power of two; a freed block waits in the list of its size and goes back
to the system only when the cache is emptied. So the host holds what was ever pinned at once, bucket
by bucket. Follows ``CachingHostAllocatorImpl`` of ATen/core/CachingHostAllocator.h (torch 2.13.0),
which was run on the traces recorded in tests/data/allocator_pinned_recorded.json, and, for the
reserved segment alone, aten/src/ATen/cuda/CachingHostAllocator.cpp (pytorch commit 03258ab2).

Above ``pinned_max_round_threshold_mb`` that allocator looks at a free block's bucket and not at its
size: a request for 30 MB is handed a cached block of 20 MB (and its own statistics then fail an
assertion). This model does as it does.

DeepSpeed's ``DS_PIN_MEMORY_BACKEND=native`` goes around it: page-aligned memory of the size asked
for, locked, and freed at once (deepspeed/utils/pin_memory.py and
ops/csrc/pin_memory/deepspeed_pin_tensor.cpp, DeepSpeed 0.19.8). Pages are locked whole, so up to
4095 bytes a buffer come on top.

Not modelled: a freed block that a copy on some stream still uses comes back only after the copy.
The recording that would show how much that is: ``torch.cuda.host_memory_stats()`` of a real run.
"""

from collections.abc import Iterable

from zero_sizer.allocator.caching import MemoryEvent
from zero_sizer.allocator.settings import AllocatorSettings
from zero_sizer.units import next_power_of_two, round_up
from zero_sizer.util.records import dataclass

_PAGE = 4096


@dataclass(kw_only=True)
class _HostBlock:
    size: int
    in_segment: bool


class PinnedAllocator:
    """The pinned memory of one process.

    Args:
        settings: the ``pinned_*`` options of ``PYTORCH_ALLOC_CONF``.
        native: DeepSpeed's native backend instead of PyTorch's allocator.

    Attributes:
        allocated, peak_allocated: bytes of the blocks in use.
        reserved, peak_reserved: bytes locked on the host, free or in use.
    """

    def __init__(self, settings: AllocatorSettings | None = None, *, native: bool = False) -> None:
        self.settings = settings or AllocatorSettings()
        self.native = native
        self.allocated = self.peak_allocated = 0
        self.reserved = self.peak_reserved = 0
        self.live: dict[int, _HostBlock | None] = {}
        self._free: dict[int, list[_HostBlock]] = {}
        self._segment_left: int | None = None

    def allocate(self, owner: int, num_bytes: int) -> None:
        """Pins ``num_bytes``; 0 bytes take no memory.

        Raises:
            ValueError: ``owner`` already holds memory, or a negative size.
        """
        if owner in self.live or num_bytes < 0:
            raise ValueError(f"pinned {owner} of {num_bytes} bytes: negative, or already live")
        if num_bytes == 0:
            self.live[owner] = None
            return
        size = self.round_size(num_bytes)
        cached = self._free.get(_bucket(size))
        block = cached.pop() if cached else self._new_block(size)
        self.live[owner] = block
        self.allocated += block.size
        self.peak_allocated = max(self.peak_allocated, self.allocated)

    def free(self, owner: int) -> None:
        """Takes a buffer back.

        Raises:
            ValueError: ``owner`` holds nothing.
        """
        if owner not in self.live:
            raise ValueError(f"pinned {owner} is not live")
        block = self.live.pop(owner)
        if block is None:
            return
        self.allocated -= block.size
        if self.native or block.size > self.settings.pinned_max_cached_size:
            self._release(block)
        else:
            self._free.setdefault(_bucket(block.size), []).append(block)

    def empty_cache(self) -> None:
        """Gives every free block back to the system."""
        for blocks in self._free.values():
            for block in blocks:
                self._release(block)
        self._free.clear()

    def apply(self, event: MemoryEvent) -> None:
        """One event of a trace: ``alloc``, ``free`` or ``empty_cache``."""
        if event.kind == "alloc":
            self.allocate(event.block, event.num_bytes)
        elif event.kind == "free":
            self.free(event.block)
        elif event.kind == "empty_cache":
            self.empty_cache()
        else:
            raise ValueError(f"unknown kind of event {event.kind!r}")

    def round_size(self, num_bytes: int) -> int:
        """Bytes of the block that serves a request."""
        settings = self.settings
        limit = min(settings.pinned_max_round_threshold, settings.pinned_max_cached_size)
        if self.native or num_bytes > limit:
            return num_bytes
        return next_power_of_two(num_bytes)

    def _new_block(self, size: int) -> _HostBlock:
        if self._fits_segment(size):
            return _HostBlock(size=size, in_segment=True)
        self._lock(size)
        return _HostBlock(size=size, in_segment=False)

    def _fits_segment(self, size: int) -> bool:
        """Whether the reserved segment has room left; it never gets any back."""
        if self.native or not self.settings.pinned_reserve_segment_size:
            return False
        if self._segment_left is None:
            self._segment_left = self.settings.pinned_reserve_segment_size
            self._lock(self._segment_left)
        taken = round_up(size, _PAGE)
        if taken > self._segment_left:
            return False
        self._segment_left -= taken
        return True

    def _lock(self, num_bytes: int) -> None:
        self.reserved += num_bytes
        self.peak_reserved = max(self.peak_reserved, self.reserved)

    def _release(self, block: _HostBlock) -> None:
        if not block.in_segment:
            self.reserved -= block.size


def _bucket(size: int) -> int:
    return (size - 1).bit_length()


def replay_pinned(
    events: Iterable[MemoryEvent],
    settings: AllocatorSettings | None = None,
    *,
    native: bool = False,
) -> PinnedAllocator:
    """The allocator after a trace of pinned buffers; its peaks are those of the trace.

    Raises:
        ValueError: the trace frees what is not live, allocates a number twice, or holds an unknown
            kind.
    """
    allocator = PinnedAllocator(settings, native=native)
    for event in events:
        allocator.apply(event)
    return allocator
