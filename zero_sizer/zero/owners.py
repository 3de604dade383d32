"""Which ranks can hold most at ZeRO-1 and ZeRO-2: they differ in what their partitions touch.

Of two ranks that keep as much, the one whose gradients are reduced earlier holds it longer. So a
few ranks suffice: along that order those that keep more than every rank before.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from zero_sizer.zero import partition

_FP64 = 4  # a norm is taken in fp64: so many times 16 bits
_NEVER = 2**62  # the turn of a rank that owns padding only
_SHARE = 1000  # ranks are alike where they differ by less than this part of the weights


@dataclass(frozen=True, slots=True)
class Layout:
    """Where tensors lie.

    Attributes:
        groups: elements of the tensors of each group, in flat order.
        turns: of each of those, how early its gradient is reduced.
        ranks: ranks of the partition.
        align_tensors: ``parameter_alignment``.
        itemsize: bytes per element of the model dtype.
    """

    groups: tuple[tuple[int, ...], ...]
    turns: tuple[tuple[int, ...], ...]
    ranks: int
    align_tensors: bool
    itemsize: int

    def pieces(self) -> Iterator[tuple[int, int, int, partition.Piece]]:
        """(rank, group, turn, piece) of every piece."""
        for number, numels in enumerate(self.groups):
            turns = self.turns[number]
            found = partition.pieces(numels, self.ranks, self.align_tensors, self.itemsize)
            for rank, of_rank in enumerate(found):
                for piece in of_rank:
                    yield rank, number, turns[piece.number], piece


@dataclass(frozen=True, slots=True)
class Keeping:
    """What makes ranks differ.

    Attributes:
        weights: of each group, how often a tensor is kept whole for an element that is owned; 0
            where what is kept has the partition's size.
        limit: elements of the bucket where larger gradients are kept or freed by owners alone; 0:
            nowhere.
        pieces: whether a piece of one tensor is copied while a bucket is reduced.
    """

    weights: tuple[int, ...]
    limit: int
    pieces: bool


@lru_cache(maxsize=1024)
def candidates(layout: Layout, keeping: Keeping) -> tuple[int, ...]:
    """Ranks among which is one that holds most, whatever else is there."""
    ranks = range(layout.ranks)
    kept, large, pieces, parts = ([0] * layout.ranks for _ in range(4))
    early, late = [_NEVER] * layout.ranks, [-_NEVER] * layout.ranks
    for rank, group, turn, piece in layout.pieces():
        kept[rank] += keeping.weights[group] * piece.numel
        parts[rank] += 1
        if keeping.limit < piece.numel and keeping.limit:
            large[rank] += piece.numel
        pieces[rank] = max(pieces[rank], piece.inside)
        early[rank] = min(early[rank], turn)
        late[rank] = max(late[rank], turn)
    first = sorted(ranks, key=lambda r: (early[r], -kept[r], -pieces[r]))
    least = sum(map(sum, layout.groups)) // _SHARE
    found = {*_rising(first, kept, least)}
    whole = [r for r in first if parts[r] > 1]  # others take the tensor's own gradient for flat
    found |= {max(whole, key=kept.__getitem__)} if whole else set()
    if any(large):
        rest = [a - b for a, b in zip(kept, large, strict=True)]
        found |= {*_rising(first, rest, least), *_rising(first, large, least)}
    if keeping.pieces:
        last = sorted(ranks, key=lambda r: (-late[r], -pieces[r]))
        found |= {*_rising(first, pieces, least // _FP64), *_rising(last, pieces, least // _FP64)}
    both = [a + _FP64 * b for a, b in zip(kept, pieces, strict=True)]
    found.add(max(first, key=both.__getitem__))
    return tuple(sorted(found))


def _rising(order: Sequence[int], values: Sequence[int], least: int) -> Iterator[int]:
    """Ranks with clearly more than all before them, and the one with most."""
    best, highest = None, max(order, key=values.__getitem__)
    for rank in order:
        if best is None or values[rank] > best + least:
            best = values[rank]
            yield rank
    yield highest
