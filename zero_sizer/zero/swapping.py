"""Partitions on NVMe: which of them lie in buffers of the host, and where no buffer is left.

A parameter is prefetched only where its partition has been read already, and partitions are read
ahead of that as long as buffers are free and as much is considered as twice what is being gathered
(deepspeed 0.19.8 runtime/zero/partitioned_param_coordinator.py:436-440,690-715). A buffer is lent
until the parameter is released, or gathered for good.

Two assertions of swap_tensor/partitioned_param_swapper.py end a run: what is gathered together
needs more buffers than are free (``swap_in``), or what is read ahead has a parameter twice, since
the trace uses it twice before anything of it is read (``_allocate_and_return_buffers_for_swap_in``:
reading ahead passes over what has been read, but not over what it has just chosen).
"""

from collections.abc import Sequence
from typing import NamedTuple


class Swapped(NamedTuple):
    """Parameters whose partitions lie on NVMe.

    Attributes:
        parameters: whether each does; what is small stays in host memory.
        buffers: how many there are.
        passing: parameters that give their buffer back as soon as they are gathered, because they
            stay gathered (partitioned_param_coordinator.py:615-620).
        lent: those that have a buffer when the micro step begins.
    """

    parameters: tuple[bool, ...]
    buffers: int
    passing: tuple[bool, ...]
    lent: frozenset[int] = frozenset()


class Stop(NamedTuple):
    """An assertion with which DeepSpeed ends the run.

    Attributes:
        wanted: parameters that were to be read.
        free: buffers that were free.
        twice: the parameter that was to be read twice; None: there were too few buffers.
    """

    wanted: tuple[int, ...]
    free: int
    twice: int | None = None


class Buffers:
    """Buffers of one rank, and what lies in them.

    Attributes:
        lent: parameters that have one.
        looked: one past the farthest place in the queue that was looked at to read ahead.
        stop: the first assertion that failed; from there on nothing is as in a run.
        most: the most that were lent at once.
    """

    def __init__(self, swapped: Swapped) -> None:
        self._swapped = swapped
        self.lent = dict.fromkeys(swapped.lent)
        self.looked = 0
        self.stop: Stop | None = None
        self.most = len(self.lent)

    def is_away(self, i: int) -> bool:
        """True if the partition has to be read before it is gathered."""
        return self._swapped.parameters[i] and i not in self.lent

    def read(self, parameters: Sequence[int]) -> None:
        """Reads parameters that are gathered together, as far as they have to be."""
        away = tuple([i for i in parameters if self.is_away(i)])
        if len(away) > self._free and self.stop is None:
            self.stop = Stop(away, self._free)
        self._lend(away)
        for i in parameters:
            if self._swapped.passing[i]:
                self.give_back(i)

    def give_back(self, i: int) -> None:
        """The parameter needs its buffer no more."""
        self.lent.pop(i, None)

    def read_ahead(
        self, queue: Sequence[tuple[int, int]], head: int, numels: Sequence[int], in_flight: int
    ) -> None:
        """Reads what the queue has from ``head`` on, ``in_flight`` elements being gathered."""
        considered, free, chosen = 0, self._free, list[int]()
        for place in range(head, len(queue)):
            if considered > 2 * in_flight or len(chosen) >= free:
                break
            self.looked = max(self.looked, place + 1)
            i, _ = queue[place]
            if self.is_away(i):
                chosen.append(i)
            considered += numels[i]
        if len(set(chosen)) < len(chosen) and self.stop is None:
            twice = next(i for n, i in enumerate(chosen) if i in chosen[:n])
            self.stop = Stop(tuple(chosen), free, twice)
        self._lend(chosen)

    @property
    def _free(self) -> int:
        return max(self._swapped.buffers - len(self.lent), 0)

    def _lend(self, parameters: Sequence[int]) -> None:
        self.lent.update(dict.fromkeys(parameters))
        self.most = max(self.most, len(self.lent))
