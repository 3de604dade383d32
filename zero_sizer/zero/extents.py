"""Where a flow's tensors and buckets lie in the partitions of ZeRO-1 and ZeRO-2."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

from zero_sizer.util.identity import Identity
from zero_sizer.zero import partition
from zero_sizer.zero.gradient_flow import Flow, Tensors

ALIKE = 2  # pieces of one tensor that are reduced together: the later ones are no larger


class Extents:
    """Where a flow's tensors and buckets lie in the flat buffers of the groups (stages 1 and 2)."""

    def __init__(
        self, flow: Flow, tensors: Tensors, align_tensors: bool, itemsize: int, dealt: int
    ) -> None:
        groups = [partition.round_robin(group, dealt) for group in tensors.groups]
        self._groups = [tuple(tensors.numels[i] for i in group) for group in groups]
        self._alignment = (align_tensors, itemsize)
        self._of: dict[int, tuple[int, int, int]] = {}  # tensor -> group, first and last element
        self._spans: dict[int, list[tuple[int, int]]] = {}
        self._touched: dict[int, list[list[int]]] = {}
        self._first: dict[int, list[int]] = {}
        self._members = [flush.members for flush in flow.flushes]
        for number, (group, numels) in enumerate(zip(groups, self._groups, strict=True)):
            starts, _ = partition.flat_offsets(numels, align_tensors, itemsize)
            for index, start, numel in zip(group, starts, numels, strict=True):
                self._of[index] = (number, start, start + max(numel, 1) - 1)
        self._buckets = [self._bucket(flush.members) for flush in flow.flushes]

    def _bucket(self, members: Sequence[int]) -> list[tuple[int, int, int]]:
        """Per group with tensors in the bucket: its number, first and last element."""
        found: dict[int, tuple[int, int]] = {}
        for index in members:
            group, first, last = self._of[index]
            low, high = found.get(group, (first, last))
            found[group] = (min(low, first), max(high, last))
        return [(group, *extent) for group, extent in found.items()]

    def parts(self, ranks: int) -> list[int]:
        """Elements of a rank's partition of each group's flat buffer."""
        flat = (partition.flat_numel(numels, ranks, *self._alignment) for numels in self._groups)
        return [max(partition.flat_partition(numel, ranks), 1) for numel in flat]

    def ranks(self, ranks: int) -> list[tuple[int, int]]:
        """First and last rank whose partition each bucket touches."""
        known = self._spans.get(ranks)
        if known is None:
            known = self._spans[ranks] = self._ranks(self.parts(ranks))
        return known

    def touched(self, ranks: int, rank: int) -> list[int]:
        """Numbers of the buckets of which a rank's partition has a part."""
        known = self._touched.get(ranks)
        if known is None:
            known = self._touched[ranks] = [[] for _ in range(ranks)]
            for number, (low, high) in enumerate(self.ranks(ranks)):
                for owner in range(low, high + 1):
                    known[owner].append(number)
        return known[rank]

    def _ranks(self, parts: Sequence[int]) -> list[tuple[int, int]]:
        if len(parts) == 1:
            part = parts[0]
            return [(low // part, high // part) for [(_, low, high)] in self._buckets]
        spans = [[(a // parts[g], b // parts[g]) for g, a, b in found] for found in self._buckets]
        return [(min(a for a, _ in found), max(b for _, b in found)) for found in spans]

    def slices(self, index: int, parts: Sequence[int], limit: int) -> list[int]:
        """Elements of a tensor in each partition that it touches, but for all that are alike."""
        group, first, last = self._of[index]
        part = parts[group]
        cuts = range((first // part + 1) * part, last + 1, part)
        most = ALIKE * (limit // part + 2)
        if len(cuts) > most:
            return [cuts[0] - first, *[part] * most]
        return [end - start for start, end in pairwise((first, *cuts, last + 1))]

    def holds(self, members: Sequence[int], rank: int, parts: Sequence[int]) -> bool:
        """True if any of these tensors has a piece in the rank's partitions."""
        for i in members:
            group, low, high = self._of[i]
            part = parts[group]
            if low < (rank + 1) * part and high >= rank * part:
                return True
        return False

    def first_held(self, ranks: int, rank: int) -> int:
        """The first bucket of which a rank's partitions hold a piece; one past the last: none."""
        known = self._first.get(ranks)
        if known is None:
            known = self._first[ranks] = self._first_of_all(ranks, self.parts(ranks))
        return known[rank]

    def _first_of_all(self, ranks: int, parts: Sequence[int]) -> list[int]:
        found, missing = [len(self._members)] * ranks, ranks
        for number, members in enumerate(self._members):
            for i in members:
                group, low, high = self._of[i]
                part = parts[group]
                for rank in range(low // part, high // part + 1):
                    if found[rank] > number:
                        missing -= found[rank] == len(self._members)
                        found[rank] = number
            if not missing:
                break
        return found

    def largest(self, members: Sequence[int], rank: int, parts: Sequence[int]) -> int:
        """Elements of the largest piece of a tensor in the rank's partitions."""
        rows = (self._of[i] for i in members)
        pieces = [
            min(high + 1, (rank + 1) * parts[g]) - max(low, rank * parts[g])
            for g, low, high in rows
        ]
        return max(*pieces, 0)


@lru_cache(maxsize=64)
def extents_of(
    flow: Identity, tensors: Tensors, align_tensors: bool, itemsize: int, dealt: int
) -> Extents:
    """The extents of a flow; kept."""
    return Extents(flow.of, tensors, align_tensors, itemsize, dealt)
