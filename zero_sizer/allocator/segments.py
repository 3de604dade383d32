"""How the caching allocator takes memory from the device and gives it back.

Two ways of holding memory: segments of their own from ``cudaMalloc``, and expandable segments, one
virtual range per stream and pool that is backed page by page. Sources: see allocator.py.
"""

from collections.abc import Callable
from typing import NamedTuple

from zero_sizer.allocator.blocks import Block, Device, ExpandableSegment, Pool
from zero_sizer.allocator.settings import SMALL_SEGMENT, UNLIMITED, AllocatorSettings


class TraceEntry(NamedTuple):
    """One action of the allocator, as PyTorch's memory history records it.

    Attributes:
        action: ``alloc``, ``free_requested``, ``free_completed``, ``segment_alloc``,
            ``segment_free``, ``segment_map``, ``segment_unmap`` or ``oom``.
        address: of the block or segment; for ``oom`` the free bytes of the device.
        num_bytes: requested bytes for blocks, real bytes for segments.
        stream: the stream of the memory.
        owner: number of the allocation it happened for, None where there is none.
    """

    action: str
    address: int
    num_bytes: int
    stream: int
    owner: int | None = None


def merge(block: Block, neighbour: Block | None) -> int:
    """Grows ``block`` over a free neighbour; bytes won, 0 if it can't (``try_merge_blocks``).

    ``block`` stands in no pool while this runs.
    """
    if neighbour is None or neighbour.owner is not None or block.mapped != neighbour.mapped:
        return 0
    if neighbour.mapped:
        neighbour.pool.remove(neighbour)
    else:
        neighbour.pool.remove_unmapped(neighbour)
    if block.prev is neighbour:
        block.address = neighbour.address
        block.splice(neighbour.prev, block.next)
    else:
        block.splice(block.prev, neighbour.next)
    block.size += neighbour.size
    return neighbour.size


class SegmentStore:
    """Memory reserved on one device, in two pools.

    Attributes:
        reserved, peak_reserved: bytes held from the device.
        limit: bytes the process may reserve, None if it set no fraction.
    """

    def __init__(
        self, settings: AllocatorSettings, device: Device, note: Callable[[TraceEntry], None] | None
    ) -> None:
        self.settings = settings
        self.device = device
        self.small = Pool(is_small=True)
        self.large = Pool(is_small=False)
        self.reserved = self.peak_reserved = 0
        self.limit: int | None = None
        self._note = note

    @property
    def collects(self) -> bool:
        """True if cached blocks age: a threshold does nothing before a memory fraction is set."""
        return self.limit is not None and self.settings.garbage_collection_threshold > 0.0

    def take(self, pool: Pool, size: int, stream: int) -> Block | None:
        """A free block in no pool, from the device (``alloc_block``); None if it doesn't fit."""
        wanted = self.settings.segment_size(size)
        if self.over_limit(size):
            return None
        if self.settings.expandable_segments:
            return self._grow(pool, size, stream)
        address = self.device.malloc(wanted)
        if address is None:
            return None
        self._count(wanted, TraceEntry("segment_alloc", address, wanted, stream))
        return Block(stream=stream, size=wanted, pool=pool, address=address, segment=None)

    def over_limit(self, size: int) -> bool:
        """True if a new segment for ``size`` bytes would pass the process' limit."""
        wanted = self.settings.segment_size(size)
        return self.limit is not None and self.reserved + wanted > self.limit

    def refuses(self, size: int) -> bool:
        """True if ``throw_on_cudamalloc_oom`` refuses before cached memory is freed.

        The 2.13.0 library does so only where no memory fraction is set.
        """
        if not self.settings.throw_on_cudamalloc_oom or self.limit is not None:
            return False
        return self.reserved + self.settings.segment_size(size) > self.device.total

    def release_all(self) -> None:
        """Gives back every unused segment and every unused page (``release_cached_blocks``)."""
        for pool in (self.large, self.small):
            for block in pool.cached():
                if block.segment is not None:
                    self._unmap(block, block.segment)
                elif not block.is_split:
                    self._release(block)

    def release_oversize(self, pool: Pool, size: int, stream: int) -> bool:
        """Gives back unsplittable blocks for ``size`` (``release_available_cached_blocks``)."""
        oversize = self.settings.max_split_size
        if oversize == UNLIMITED or self.settings.expandable_segments:
            return False
        target = max(size, oversize)
        single = next(pool.fitting(stream, target), None)
        if single is not None:
            self._release(single)
            return True
        released = 0
        for block in pool.below(stream, target):
            if released >= target or block.size < oversize:
                break
            released += block.size
            self._release(block)
        return released >= target

    def collect_garbage(self) -> None:
        """Gives back large blocks of at least average age (``garbage_collect_cached_blocks``)."""
        threshold = int(self.settings.garbage_collection_threshold * (self.limit or 0))
        excess, reclaimed, freed = self.reserved - threshold, 0, True
        idle = [block for block in self.large.cached() if not block.is_split]
        while idle and freed and reclaimed < excess:
            ages = {block.address: self.large.searches - block.gc_base for block in idle}
            average = sum(ages.values()) / len(ages)
            old = [block for block in idle if ages[block.address] >= average]
            idle = [block for block in idle if ages[block.address] < average]
            freed = bool(old)
            for block in old:
                reclaimed += block.size
                self._release(block)

    def _release(self, block: Block) -> None:
        block.pool.remove(block)
        self.device.give(block.size)
        self._count(
            -block.size, TraceEntry("segment_free", block.address, block.size, block.stream)
        )

    def _count(self, change: int, entry: TraceEntry) -> None:
        self.reserved += change
        self.peak_reserved = max(self.peak_reserved, self.reserved)
        if self._note is not None:
            self._note(entry)

    def _grow(self, pool: Pool, size: int, stream: int) -> Block | None:
        """Backs address space until a block holds ``size`` (``try_allocate_expandable_block``)."""
        block = self._room(pool, size, stream)
        if not block.mapped and not self._map(block, min(block.size, size)):
            return None
        while block.size < size:
            behind = block.next
            if behind is None or not self._map(behind, min(size - block.size, behind.size)):
                return None
            block = behind  # it has swallowed the free block before it
        pool.remove(block)
        return block

    def _room(self, pool: Pool, size: int, stream: int) -> Block:
        """Lowest block with ``size`` bytes free or unbacked from it (``find_expandable_block``)."""
        for unmapped in pool.unmapped_blocks(stream):
            before = unmapped.prev
            start = before if before is not None and before.owner is None else unmapped
            if _room_from(start, size):
                return start
        segment = ExpandableSegment(
            self.device, SMALL_SEGMENT if pool.is_small else self.settings.large_segment_size
        )
        block = Block(
            stream=stream, size=segment.size, pool=pool, address=segment.base, segment=segment
        )
        block.mapped = False
        pool.add_unmapped(block)
        return block

    def _map(self, block: Block, size: int) -> bool:
        """Puts whole pages behind the start of ``block`` (``map_block``)."""
        segment = block.segment
        if segment is None:
            return False
        backed = segment.page_ceil(block.address + size) - block.address
        if not self.device.take(backed):
            return False
        block.pool.remove_unmapped(block)
        self._count(backed, TraceEntry("segment_map", block.address, backed, block.stream))
        block.mapped = True
        if backed < block.size:
            rest = block.part(block.address + backed, block.size - backed)
            rest.mapped = False
            rest.splice(block, block.next)
            block.size = backed
            block.pool.add_unmapped(rest)
        merge(block, block.prev)
        merge(block, block.next)
        block.pool.add(block)
        return True

    def _unmap(self, block: Block, segment: ExpandableSegment) -> None:
        """Gives back the whole pages inside a free block (``unmap_block``)."""
        start = segment.page_ceil(block.address)
        end = segment.page_floor(block.address + block.size)
        if start >= end:
            return
        pool = block.pool
        pool.remove(block)
        if start > block.address:
            before = block.part(block.address, start - block.address)
            before.splice(block.prev, block)
            pool.add(before)
        if block.address + block.size > end:
            after = block.part(end, block.address + block.size - end)
            after.splice(block, block.next)
            pool.add(after)
        block.address, block.size, block.mapped = start, end - start, False
        self.device.give(end - start)
        self._count(start - end, TraceEntry("segment_unmap", start, end - start, block.stream))
        merge(block, block.prev)
        merge(block, block.next)
        if block.is_split:
            pool.add_unmapped(block)


def _room_from(block: Block | None, size: int) -> bool:
    while size > 0 and block is not None and block.owner is None:
        size -= block.size
        block = block.next
    return size <= 0
