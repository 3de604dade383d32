"""Where a flow's tensors and buckets lie in the partitions of ZeRO-1 and ZeRO-2."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from zero_sizer.util.caches import cached_large
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
        self._parts: dict[int, list[int]] = {}
        self._touched: dict[int, list[list[int]]] = {}
        self._members = [flush.members for flush in flow.flushes]
        for number, (group, numels) in enumerate(zip(groups, self._groups, strict=True)):
            starts, _ = partition.flat_offsets(numels, align_tensors, itemsize)
            for index, start, numel in zip(group, starts, numels, strict=True):
                self._of[index] = (number, start, start + max(numel, 1) - 1)
        self._buckets = [self._bucket(flush.members) for flush in flow.flushes]
        self._rows = _rows_of(self._buckets)
        self._turns = list(self._turns_of(groups))

    def _turns_of(self, groups: Sequence[Sequence[int]]) -> Iterator["_Turns"]:
        """The tensors of each group with the number of the bucket that reduces them."""
        numbers = {i: n for n, members in enumerate(self._members) for i in members}
        for group in groups:
            rows = [self._of[index] for index in group]
            turns = [numbers.get(index, len(self._members)) for index in group]
            yield _Turns([low for _, low, _ in rows], [high for _, _, high in rows], turns)

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
        found = self._parts.get(ranks)
        if found is None:
            how = (ranks, *self._alignment)
            flat = (partition.flat_numel(numels, *how) for numels in self._groups)
            found = [max(partition.flat_partition(numel, ranks), 1) for numel in flat]
            self._parts[ranks] = found
        return found

    def span(self, number: int, parts: Sequence[int]) -> tuple[int, int]:
        """First and last rank whose partition a bucket touches."""
        found = self._buckets[number]
        if len(found) == 1:
            [(group, low, high)] = found
            return low // parts[group], high // parts[group]
        spans = [(low // parts[group], high // parts[group]) for group, low, high in found]
        return min(a for a, _ in spans), max(b for _, b in spans)

    def runs(
        self, number: int, parts: Sequence[int], apart: tuple[int, Sequence[bool]] | None = None
    ) -> list[tuple[int, int, int]]:
        """Owners of what a bucket reduces: rank, its elements, and of how many slices they are.

        Slices of one owner that follow one another are one; not those of a rank's tensors in these
        groups (``apart``).
        """
        found: dict[int, tuple[int, int]] = {}
        last = -1
        for index in self._members[number]:
            group, low, high = self._of[index]
            part = parts[group]
            for owner in range(low // part, high // part + 1):
                size = min(high + 1, (owner + 1) * part) - max(low, owner * part)
                is_apart = apart is not None and owner == apart[0] and apart[1][group]
                numel, count = found.get(owner, (0, 0))
                found[owner] = numel + size, count + (is_apart or owner != last)
                last = -1 if is_apart else owner
        return [(owner, *of) for owner, of in found.items()]

    def touched(self, ranks: int, rank: int) -> Sequence[int]:
        """Numbers of the buckets of which a rank's partition has a part."""
        if self._rows is not None:
            part = self.parts(ranks)[0]
            return self._rows.within(rank * part, (rank + 1) * part)
        known = self._touched.get(ranks)
        if known is None:
            parts = self.parts(ranks)
            known = self._touched[ranks] = [[] for _ in range(ranks)]
            for number in range(len(self._buckets)):
                low, high = self.span(number, parts)
                for owner in range(low, high + 1):
                    known[owner].append(number)
        return known[rank]

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
        found = len(self._members)
        for turns, part in zip(self._turns, self.parts(ranks), strict=True):
            numbers = turns.within(rank * part, (rank + 1) * part)
            if numbers:
                found = min(found, *numbers)
        return found

    def loose_of(
        self, ranks: int, rank: int, cleared: Sequence[int], groups: Sequence[bool]
    ) -> list[tuple[int, int]]:
        """Tensors in no buffer of which a rank has a part: ``Flow.cleared`` of each, elements.

        ``groups``: which of the groups are asked for.
        """
        found: list[tuple[int, int]] = []
        for turns, part, is_asked in zip(self._turns, self.parts(ranks), groups, strict=True):
            if not is_asked:
                continue
            rows = turns.rows_within(rank * part, (rank + 1) * part)
            found += [
                (cleared[n], high - low + 1)
                for low, high, n in rows
                if n < len(cleared) and cleared[n] >= 0
            ]
        return sorted(found)

    def largest(
        self, members: Sequence[int], rank: int, parts: Sequence[int], groups: Sequence[bool] = ()
    ) -> int:
        """Elements of the largest piece of a tensor in the rank's partitions (of these groups)."""
        rows = (self._of[i] for i in members if not groups or groups[self._of[i][0]])
        pieces = [
            min(high + 1, (rank + 1) * parts[g]) - max(low, rank * parts[g])
            for g, low, high in rows
        ]
        return max([*pieces, 0])


class _Turns(NamedTuple):
    """Tensors of a group in flat order: first and last element, and the bucket of each."""

    lows: Sequence[int]
    highs: Sequence[int]
    numbers: Sequence[int]

    def within(self, first: int, end: int) -> Sequence[int]:
        """Buckets of the tensors that have an element from ``first`` on and before ``end``."""
        return self.numbers[self._slice(first, end)]

    def rows_within(self, first: int, end: int) -> Iterator[tuple[int, int, int]]:
        """First and last element of those tensors, and the bucket of each."""
        where = self._slice(first, end)
        return zip(self.lows[where], self.highs[where], self.numbers[where], strict=True)

    def _slice(self, first: int, end: int) -> slice:
        return slice(bisect_left(self.highs, first), bisect_left(self.lows, end))


class _Rows:
    """Buckets by where they lie in a flat buffer."""

    def __init__(self, extents: Sequence[tuple[int, int]]) -> None:
        self._order = sorted(range(len(extents)), key=lambda number: extents[number])
        self._lows = [extents[number][0] for number in self._order]
        self._highs = [extents[number][1] for number in self._order]
        self._longest = max([high - low for low, high in extents], default=0)

    def within(self, first: int, end: int) -> list[int]:
        """Numbers of those that have an element from ``first`` on and before ``end``."""
        low, high = bisect_left(self._lows, first - self._longest), bisect_left(self._lows, end)
        found = zip(self._order[low:high], self._highs[low:high], strict=True)
        return sorted([number for number, last in found if last >= first])


def _rows_of(buckets: Sequence[Sequence[tuple[int, int, int]]]) -> _Rows | None:
    """The buckets of a model with one group; None of several."""
    if any(len(found) != 1 or found[0][0] for found in buckets):
        return None
    return _Rows([found[0][1:] for found in buckets])


@cached_large(maxsize=64)
def extents_of(
    flow: Identity, tensors: Tensors, align_tensors: bool, itemsize: int, dealt: int
) -> Extents:
    """The extents of a flow; kept."""
    return Extents(flow.of, tensors, align_tensors, itemsize, dealt)
