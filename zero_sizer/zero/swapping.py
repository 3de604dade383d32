"""Partitions on NVMe: which of them lie in buffers of the host.

A parameter is prefetched only where its partition has been read already, and partitions are read
ahead of that as long as buffers are free and as much is considered as twice what is being gathered
(deepspeed 0.19.8 runtime/zero/partitioned_param_coordinator.py:436-440,690-715). A buffer is lent
until the parameter is released, or gathered for good.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Swapped(NamedTuple):
    """Parameters whose partitions lie on NVMe.

    Attributes:
        parameters: whether each does; what is small stays in host memory.
        buffers: how many there are.
    """

    parameters: tuple[bool, ...]
    buffers: int


class Buffers:
    """Buffers of one rank, and what lies in them."""

    def __init__(self, swapped: Swapped) -> None:
        self._swapped = swapped
        self._lent: set[int] = set()

    def is_away(self, i: int) -> bool:
        """True if the partition has to be read before it is gathered."""
        return self._swapped.parameters[i] and i not in self._lent

    def read(self, i: int) -> None:
        """The partition is read, if it has to be."""
        if self.is_away(i):
            self._lent.add(i)

    def give_back(self, i: int) -> None:
        """The parameter needs its buffer no more."""
        self._lent.discard(i)

    def read_ahead(self, queue: Iterable[int], numels: Sequence[int], in_flight: int) -> None:
        """Reads what comes next, ``in_flight`` elements being gathered."""
        considered = 0
        free = self._swapped.buffers - len(self._lent)
        for i in queue:
            if considered > 2 * in_flight or free <= 0:
                return
            if self.is_away(i):
                self._lent.add(i)
                free -= 1
            considered += numels[i]
