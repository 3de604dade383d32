"""Replays a run's requests in a device of a given size, PyTorch's caching allocator included.

A sum of live bytes cannot tell: what lies free between other blocks is no use to a request that is
larger. A device that is full makes the allocator give back what it has cached whole, and try again.
"""

from zero_sizer.allocator.caching import CachingAllocator, DeviceOutOfMemoryError
from zero_sizer.allocator.settings import AllocatorSettings
from zero_sizer.util.records import dataclass


class LimitedDevice:
    """The allocator of a device with ``num_bytes`` for it; follows a run until it is out of them.

    Attributes:
        room: what became of it so far.
    """

    def __init__(self, num_bytes: int, settings: AllocatorSettings) -> None:
        self.room = Room(num_bytes=num_bytes)
        self._allocator = CachingAllocator(settings, capacity=num_bytes)

    def allocate(self, block: int, num_bytes: int, phase: str, stream: int = 0) -> None:
        """A request of the run, in ``phase`` and on a stream of the GPU."""
        if not self.room.fits:
            return
        try:
            self._allocator.allocate(block, num_bytes, stream)
        except DeviceOutOfMemoryError as error:
            self.room = Room(
                num_bytes=self.room.num_bytes,
                fits=False,
                phase=phase,
                requested=error.requested,
                allocated=error.allocated,
                reserved=error.reserved,
            )

    def free(self, block: int) -> None:
        """A block goes back."""
        if self.room.fits:
            self._allocator.free(block)

    def empty_cache(self) -> None:
        """``torch.cuda.empty_cache``."""
        if self.room.fits:
            self._allocator.empty_cache()


@dataclass(frozen=True, kw_only=True)
class Room:
    """Memory of a GPU that a run gets along with, fragmentation included.

    Attributes:
        num_bytes: what PyTorch's allocator may take of the GPU.
        fits: it never ran out.
        phase: where it did.
        requested, allocated, reserved: bytes asked for then, live and held; 0 where it fits.
    """

    num_bytes: int
    fits: bool = True
    phase: str = ""
    requested: int = 0
    allocated: int = 0
    reserved: int = 0
