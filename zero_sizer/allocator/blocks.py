"""Blocks, pools and the device behind PyTorch's caching allocator.

Follows ``Block``, ``BlockPool`` and ``ExpandableSegment`` of c10/cuda/CUDACachingAllocator.cpp; see
allocator.py for what was read.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator

from zero_sizer.units import MIB, round_up
from zero_sizer.util.records import dataclass

_ADDRESS_ALIGN = 2 * MIB
_SEGMENTS_BASE = 0x7000_0000_0000
_RANGES_BASE = 0x1000_0000_0000
_RANGE_GAP = 2**40


class Device:
    """Physical memory and addresses, as ``cudaMalloc`` and ``cuMemCreate`` hand them out.

    Addresses only grow, so that a replay is deterministic; a driver may reuse them.
    """

    __slots__ = ("capacity", "next_range", "next_segment", "total", "used")

    def __init__(self, capacity: int | None, total: int | None) -> None:
        self.capacity = capacity if capacity is not None else 2**62
        self.total = total if total is not None else (capacity if capacity is not None else 2**50)
        self.used = 0
        self.next_segment = _SEGMENTS_BASE
        self.next_range = _RANGES_BASE

    def malloc(self, num_bytes: int) -> int | None:
        """Address of a new segment, or None when the device is full."""
        if not self.take(num_bytes):
            return None
        address = self.next_segment
        self.next_segment += round_up(num_bytes, _ADDRESS_ALIGN)
        return address

    def take(self, num_bytes: int) -> bool:
        """Takes ``num_bytes`` of physical memory; false where there are not as many."""
        if self.used + num_bytes > self.capacity:
            return False
        self.used += num_bytes
        return True

    def give(self, num_bytes: int) -> None:
        """Physical memory goes back to the device."""
        self.used -= num_bytes

    def reserve_range(self, page: int) -> tuple[int, int]:
        """Address and size of a new virtual range: 1 1/8 of the device in whole pages."""
        address, size = self.next_range, round_up(self.total + self.total // 8, page)
        self.next_range += size + _RANGE_GAP
        return address, size


class ExpandableSegment:
    """A virtual range that is backed page by page."""

    __slots__ = ("base", "page", "size")

    def __init__(self, device: Device, page: int) -> None:
        self.page = page
        self.base, self.size = device.reserve_range(page)

    def page_floor(self, address: int) -> int:
        """Start of the page that holds ``address``."""
        return address - (address - self.base) % self.page

    def page_ceil(self, address: int) -> int:
        """First page start not below ``address``."""
        return address + (self.base - address) % self.page


class Block:
    """A stretch of one segment: handed out, cached, or (expandable segments) not backed.

    Attributes:
        size: bytes, after rounding.
        requested: bytes asked for.
        owner: number of the allocation that holds it, None if free.
        gc_base: the pool's search count when it was last cached.
    """

    __slots__ = (
        "address",
        "gc_base",
        "mapped",
        "next",
        "owner",
        "pool",
        "prev",
        "requested",
        "segment",
        "size",
        "stream",
    )

    def __init__(
        self,
        *,
        stream: int,
        size: int,
        pool: "Pool",
        address: int,
        segment: ExpandableSegment | None,
    ) -> None:
        self.stream = stream
        self.size = size
        self.pool = pool
        self.address = address
        self.segment = segment
        self.requested = 0
        self.owner: int | None = None
        self.mapped = True
        self.prev: Block | None = None
        self.next: Block | None = None
        self.gc_base = 0

    @property
    def is_split(self) -> bool:
        """True if the segment holds other blocks too."""
        return self.prev is not None or self.next is not None

    def part(self, address: int, size: int) -> "Block":
        """A new block of the same segment, not yet linked."""
        return Block(
            stream=self.stream, size=size, pool=self.pool, address=address, segment=self.segment
        )

    def splice(self, before: "Block | None", after: "Block | None") -> None:
        """Links this block between two neighbours."""
        self.prev, self.next = before, after
        if before is not None:
            before.next = self
        if after is not None:
            after.prev = self

    def expandable_size(self) -> int:
        """Bytes it could grow to by backing the address space behind it."""
        behind = self.next
        return self.size + (behind.size if behind is not None and not behind.mapped else 0)


class Pool:
    """Free blocks of one size class, per stream, smallest first and lowest address first."""

    __slots__ = ("by_address", "free", "is_small", "searches", "unmapped")

    def __init__(self, *, is_small: bool) -> None:
        self.is_small = is_small
        self.searches = 0
        self.free: dict[int, list[tuple[int, int]]] = {}
        self.unmapped: dict[int, list[int]] = {}
        self.by_address: dict[int, Block] = {}

    def add(self, block: Block) -> None:
        """Caches a free block."""
        block.gc_base = self.searches
        insort(self.free.setdefault(block.stream, []), (block.size, block.address))
        self.by_address[block.address] = block

    def remove(self, block: Block) -> None:
        """Takes a cached block out."""
        keys = self.free[block.stream]
        del keys[bisect_left(keys, (block.size, block.address))]
        del self.by_address[block.address]

    def fitting(self, stream: int, size: int) -> Iterator[Block]:
        """Cached blocks of at least ``size`` bytes, best fit first."""
        keys = self.free.get(stream, ())
        for index in range(bisect_left(keys, (size, 0)), len(keys)):
            yield self.by_address[keys[index][1]]

    def best(self, stream: int, size: int) -> Block | None:
        """The cached block that ``fitting`` gives first."""
        keys = self.free.get(stream, ())
        index = bisect_left(keys, (size, 0))
        return self.by_address[keys[index][1]] if index < len(keys) else None

    def below(self, stream: int, size: int) -> list[Block]:
        """Cached blocks under ``size`` bytes, largest first."""
        keys = self.free.get(stream, [])
        return [
            self.by_address[address]
            for _, address in reversed(keys[: bisect_left(keys, (size, 0))])
        ]

    def cached(self) -> list[Block]:
        """Every cached block, by stream, size and address."""
        return [
            self.by_address[address]
            for stream in sorted(self.free)
            for _, address in self.free[stream]
        ]

    def largest(self) -> int:
        """Bytes of the largest cached block; 0 if none."""
        return max((keys[-1][0] for keys in self.free.values() if keys), default=0)

    def add_unmapped(self, block: Block) -> None:
        """Notes a stretch of address space without memory behind it."""
        insort(self.unmapped.setdefault(block.stream, []), block.address)
        self.by_address[block.address] = block

    def remove_unmapped(self, block: Block) -> None:
        """Forgets such a stretch."""
        addresses = self.unmapped[block.stream]
        del addresses[bisect_left(addresses, block.address)]
        del self.by_address[block.address]

    def unmapped_blocks(self, stream: int) -> list[Block]:
        """Stretches without memory, lowest address first."""
        return [self.by_address[address] for address in self.unmapped.get(stream, ())]


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A contiguous stretch of reserved memory: one ``cudaMalloc``, or pages in a row."""

    address: int
    size: int
    stream: int
    is_large: bool
    is_expandable: bool
    blocks: tuple[Block, ...]


def segments_of(blocks: Iterable[Block]) -> list[Segment]:
    """The segments that backed ``blocks`` make up, by address."""
    segments = []
    for head in sorted(blocks, key=lambda block: block.address):
        if head.prev is not None and head.prev.mapped:
            continue
        members: list[Block] = []
        block: Block | None = head
        while block is not None and block.mapped:
            members.append(block)
            block = block.next
        segments.append(
            Segment(
                address=head.address,
                size=sum(member.size for member in members),
                stream=head.stream,
                is_large=not head.pool.is_small,
                is_expandable=head.segment is not None,
                blocks=tuple(members),
            )
        )
    return segments
