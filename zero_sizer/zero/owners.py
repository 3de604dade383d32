"""Which ranks can hold most at ZeRO-1 and ZeRO-2: they differ in what their partitions touch.

Of two ranks that keep as much, the one whose gradients are reduced earlier holds it longer. So a
few ranks suffice: along that order those that keep more than every rank before. Differences of
less than a thousandth of the weights are left out.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import chain, islice

from zero_sizer.util.records import dataclass
from zero_sizer.zero import envelope, partition
from zero_sizer.zero.envelope import Change

_SHARE = 1000
_FEW = 16  # ranks that may all be candidates
_FP64 = 4  # a norm is taken in fp64: so many times 16 bits


@dataclass(frozen=True, slots=True)
class Layout:
    """Where tensors lie.

    Attributes:
        groups: elements of the tensors of each group, in flat order.
        turns: of each of those its place among all; None: they lie in that order.
        last_first: gradients are reduced from the last on.
        ranks: ranks of the partition.
        align_tensors: ``parameter_alignment``.
        itemsize: bytes per element of the model dtype.
    """

    groups: tuple[tuple[int, ...], ...]
    turns: tuple[tuple[int, ...], ...] | None
    last_first: bool
    ranks: int
    align_tensors: bool
    itemsize: int


@dataclass(frozen=True, slots=True)
class Keeping:
    """Differences between ranks in what they keep.

    Attributes:
        weights: of each group, how often a tensor that is touched is kept whole; 0 where what is
            kept has the partition's size.
        limit: elements of the bucket.
        large: what owners alone do with gradients that are larger, or lie in no buffer: 1 keep
            them, -1 free them, 0 nothing.
        pieces: whether a piece of one tensor is copied while a bucket is reduced.
        parts: how often a rank keeps its partition's size from its first reduction on.
        grows: what is kept whole comes tensor by tensor: gradients lie in no buffer.
    """

    weights: tuple[int, ...]
    limit: int
    large: int
    pieces: bool
    parts: int = 0
    grows: bool = False


@lru_cache(maxsize=1024)
def candidates(layout: Layout, keeping: Keeping) -> tuple[int, ...]:
    """Ranks among which is one that holds most, whatever else is there."""
    if keeping.pieces and layout.ranks <= _FEW:
        return tuple(range(layout.ranks))  # activations decide too, when which piece is copied
    limit = keeping.limit if keeping.pieces else 0  # else it decides about large ones alone
    found, kept = _without_large(layout, replace(keeping, limit=limit, large=0, parts=0))
    if keeping.large:
        flat, firsts, early, _ = _ordered(layout)
        large = list(_large(layout, flat, keeping))
        if large:
            part = keeping.parts * sum(group.part for group in flat)
            first = (
                (firsts[rank], 0, rank, part + (0 if keeping.grows else kept[rank]))
                for rank in early
            )
            highest = envelope.highest(layout.ranks, chain(first, large), _least(layout))
            found = found.union(highest)
    return tuple(sorted(found))


def _least(layout: Layout) -> int:
    """Elements that count as a difference."""
    return sum(map(sum, layout.groups)) // _SHARE


@lru_cache(maxsize=1024)
def _without_large(layout: Layout, keeping: Keeping) -> tuple[frozenset[int], list[int]]:
    """The candidates where no gradient is larger than the bucket, and what each rank keeps."""
    where = (layout.ranks, layout.align_tensors, layout.itemsize)
    flat, _, early, late = _ordered(layout)

    def piece(rank: int) -> int:
        return max((group.piece(rank) for group in flat), default=0)

    least = _least(layout)
    kept = _kept(layout, keeping.weights, where)
    found = {*_rising(early, kept.__getitem__, least)}
    most = sum(group.most for group in flat)
    by_kept = sorted(early, key=kept.__getitem__, reverse=True)
    found.add(_normed(by_kept, kept, piece, most))
    # the only tensor that is touched is its own flat gradient
    several = (rank for rank in by_kept if sum(group.count(rank) for group in flat) > 1)
    found.update(islice(several, 1))
    if keeping.pieces:
        for order in (early, late):
            found.update(_rising(order, piece, least // _FP64, most))
        found.update(_largest_pieces(layout, flat, keeping.limit))
    return frozenset(found), kept


_Where = tuple[int, bool, int]


def _kept(layout: Layout, weights: Sequence[int], where: _Where) -> list[int]:
    sums = [0] * layout.ranks
    for numels, weight in zip(layout.groups, weights, strict=True):
        if weight:
            touched = partition.touched(numels, *where)
            sums = [total + weight * numel for total, numel in zip(sums, touched, strict=True)]
    return sums


def _large(layout: Layout, flat: Sequence["_Group"], keeping: Keeping) -> Iterator[Change]:
    """What ranks free of the gradients that lie in no buffer, or keep of them."""
    turn = int(keeping.large < 0)
    for number, numels in enumerate(layout.groups if keeping.large else ()):
        for i, numel in enumerate(numels):
            if keeping.grows or numel > keeping.limit:
                time, amount = (
                    _time(layout.turns, layout.last_first, number, i),
                    numel * keeping.large,
                )
                for rank in flat[number].owners(i):
                    yield time, turn, rank, amount


def _largest_pieces(layout: Layout, flat: Sequence["_Group"], limit: int) -> Iterator[int]:
    """Ranks with the largest piece of tensors that are reduced when much waits, early or late."""
    how = (layout.groups, layout.turns, layout.last_first)
    for number, tensor in _beside_much(*how, limit):
        yield flat[number].largest_owner(tensor)


@lru_cache(maxsize=256)
def _beside_much(
    groups: tuple[tuple[int, ...], ...],
    turns: tuple[tuple[int, ...], ...] | None,
    last_first: bool,
    limit: int,
) -> tuple[tuple[int, int], ...]:
    """Group and number of tensors that are reduced when much waits, early or late.

    One that is larger than the bucket waits for the next tensor, and is there beside it.
    """
    tensors = sorted(
        (_time(turns, last_first, n, i), n, i) for n, g in enumerate(groups) for i in range(len(g))
    )
    if not tensors:
        return ()
    numels = [groups[number][i] for _, number, i in tensors]
    waiting = [
        numel + later if numel > limit else 0
        for numel, later in zip(numels, [*numels[1:], 0], strict=True)
    ]
    least = sum(map(sum, groups)) // _SHARE
    places = chain.from_iterable(
        _rising(order, waiting.__getitem__, least)
        for order in (range(len(tensors)), range(len(tensors))[::-1])
    )
    return tuple([tensors[place][1:] for place in places if waiting[place]])


def _time(
    turns: tuple[tuple[int, ...], ...] | None, last_first: bool, group: int, tensor: int
) -> int:
    turn = turns[group][tensor] if turns is not None else tensor
    return -turn if last_first else turn


class _Group:
    """One flat buffer."""

    def __init__(
        self, numels: tuple[int, ...], ranks: int, align_tensors: bool, itemsize: int
    ) -> None:
        self._numels = numels
        self._starts, _ = partition.flat_offsets(numels, align_tensors, itemsize)
        flat = partition.flat_numel(numels, ranks, align_tensors, itemsize)
        self.part = max(partition.flat_partition(flat, ranks), 1)
        self._pieces: dict[int, int] = {}
        self.most = min(self.part, max(numels, default=0))

    def span(self, rank: int) -> tuple[int, int]:
        """First of the tensors that a rank touches, and one past the last."""
        return partition.span(self._starts, self.part, rank)

    def owners(self, tensor: int) -> range:
        """Ranks that touch a tensor."""
        start = self._starts[tensor]
        return range(start // self.part, (start + self._numels[tensor] - 1) // self.part + 1)

    def largest_owner(self, tensor: int) -> int:
        """The rank with the largest piece of a tensor."""
        start = self._starts[tensor]
        end = start + self._numels[tensor]
        part = self.part
        return max(
            self.owners(tensor),
            key=lambda rank: min(end, (rank + 1) * part) - max(start, rank * part),
        )

    def count(self, rank: int) -> int:
        """Tensors that a rank touches."""
        low, high = self.span(rank)
        return high - low

    def piece(self, rank: int) -> int:
        """Elements of the largest piece of a tensor in a rank's partition."""
        found = self._pieces.get(rank)
        if found is None:
            found = self._pieces[rank] = self._piece(rank)
        return found

    def _piece(self, rank: int) -> int:
        low, high = self.span(rank)
        first, end = rank * self.part, (rank + 1) * self.part
        starts, numels = self._starts[low:high], self._numels[low:high]
        inside = numels[1:-1]  # all between the first and the last lie in the partition
        if inside:
            starts, numels = (starts[0], starts[-1]), (numels[0], numels[-1])
        pieces = [
            min(start + numel, end) - max(start, first)
            for start, numel in zip(starts, numels, strict=True)
        ]
        return max([*pieces, *inside], default=0)


@lru_cache(maxsize=256)
def _ordered(layout: Layout) -> tuple[Sequence[_Group], list[int], list[int], list[int]]:
    """The flat buffers; when each rank's first gradient is reduced; ranks early and late."""
    where = (layout.ranks, layout.align_tensors, layout.itemsize)
    flat = [_Group(numels, *where) for numels in layout.groups]
    first, last = _times(layout, flat)
    return flat, first, *_orders(layout, first, last)


def _times(layout: Layout, flat: Sequence[_Group]) -> tuple[list[int], list[int]]:
    """When the first and the last of each rank's gradients are reduced."""
    first, last = [], []
    for rank in range(layout.ranks):
        spans = [group.span(rank) for group in flat]
        if layout.turns is None:  # they are reduced in their order, or against it
            turns = [turn for low, high in spans if high > low for turn in (low, high - 1)]
        else:
            pairs = zip(spans, layout.turns, strict=True)
            turns = [turn for (low, high), of in pairs for turn in of[low:high]]
        low, high = min(turns, default=0), max(turns, default=0)
        first.append(-high if layout.last_first else low)
        last.append(-low if layout.last_first else high)
    return first, last


def _orders(layout: Layout, first: list[int], last: list[int]) -> tuple[list[int], list[int]]:
    """Ranks as their first gradient is reduced, then as their last one is, the latest first."""
    ranks = list(range(layout.ranks))
    if layout.turns is None:
        return (ranks[::-1], ranks) if layout.last_first else (ranks, ranks[::-1])
    return sorted(ranks, key=first.__getitem__), sorted(ranks, key=lambda rank: -last[rank])


def _rising(
    order: Sequence[int], value: Callable[[int], int], least: int, most: int | None = None
) -> Iterator[int]:
    """Ranks with clearly more than all before them, and the first with most (``most``: enough)."""
    best = highest = value(order[0])
    where = order[0]
    yield where
    for rank in order:
        if most is not None and highest + least >= most:
            break
        found = value(rank)
        if found > highest:
            highest, where = found, rank
        if found > best + least:
            best = found
            yield rank
    yield where


def _normed(
    by_kept: Sequence[int], kept: Sequence[int], piece: Callable[[int], int], most: int
) -> int:
    """The rank with most while the norm of its largest piece is taken."""
    best, where = -1, 0
    for rank in by_kept:
        if kept[rank] + _FP64 * most <= best:
            break
        found = kept[rank] + _FP64 * piece(rank)
        if found > best:
            best, where = found, rank
    return where
