"""Levels of gathered parameters for any number of ranks.

What is gathered when does not depend on the number of ranks, only the padding of gathered tensors
does. So levels are kept as forms: elements, and how many tensors of which size lie padded.
"""

from collections.abc import Iterable, Sequence
from itertools import repeat
from operator import add, mul
from typing import NamedTuple

from zero_sizer.zero.partition import flat_partition, padded


class Form(NamedTuple):
    """Sizes of gathered tensors and gather buffers, for any number of ranks.

    Attributes:
        num_bytes: without padding.
        padded: elements, bytes of an element and count of the tensors that lie there padded.
        brought: elements and bytes of an element of the tensors whose partitions lie beside them,
            and whether those are secondary ones.
        secondary: elements, bytes of an element and count of the secondary partitions.
    """

    num_bytes: int
    padded: tuple[tuple[int, int, int], ...]
    brought: tuple[tuple[int, int, bool], ...] = ()
    secondary: tuple[tuple[int, int, int], ...] = ()

    def at(self, padding: "Padding") -> int:
        """Bytes, padding included."""
        total = self.num_bytes
        for size, each, count in self.padded:
            total += count * each * padding[size]
        for size, each, is_secondary in self.brought:
            ranks = padding.group if is_secondary else padding.ranks
            total += flat_partition(size + padding[size], ranks) * each
        for size, each, count in self.secondary:
            total += count * each * flat_partition(size + padding[size], padding.group)
        return total

    @property
    def per_rank(self) -> int:
        """Bytes by which padding for one more rank makes it larger, at most."""
        return sum([count * each for _, each, count in (*self.padded, *self.secondary)]) + sum(
            [each for _, each, is_secondary in self.brought if is_secondary]
        )


class Compiled:
    """Forms as columns of numbers: what each adds to all of them is added at once."""

    def __init__(self, forms: Sequence[Form]) -> None:
        self._plain = [form.num_bytes for form in forms]
        columns: dict[tuple[str, int, int, bool], list[int]] = {}
        for number, form in enumerate(forms):
            rows = (
                *(("padded", size, each, False, count) for size, each, count in form.padded),
                *(("brought", size, each, second, 1) for size, each, second in form.brought),
                *(("brought", size, each, True, count) for size, each, count in form.secondary),
            )
            for kind, size, each, is_secondary, count in rows:
                key = (kind, size, each, is_secondary)
                column = columns.get(key)
                if column is None:
                    column = columns[key] = [0] * len(forms)
                column[number] += count
        self._columns = list(columns.items())

    def at(self, padding: "Padding") -> list[int]:
        """Bytes of each, padding included."""
        totals: Iterable[int] = self._plain
        for (kind, size, each, is_secondary), counts in self._columns:
            more = padding[size]
            if kind == "brought":
                ranks = padding.group if is_secondary else padding.ranks
                more = flat_partition(size + more, ranks)
            if more:
                totals = map(add, totals, map(mul, counts, repeat(each * more)))
        return list(totals)


class Padding(dict[int, int]):
    """Elements that a tensor of so many is padded by, for a number of ranks; filled when asked.

    ``group``: ranks over which secondary partitions are cut.
    """

    def __init__(self, ranks: int, group: int = 0) -> None:
        super().__init__()
        self.ranks = ranks
        self.group = group

    def __missing__(self, size: int) -> int:
        found = self[size] = padded(size, self.ranks) - size
        return found


SPAN = 8
"""So many times more ranks have a ceiling in common."""


def below(ranks: int) -> int:
    """The power of ``SPAN`` up to ``ranks``."""
    found = 1
    while found * SPAN <= ranks:
        found *= SPAN
    return found


class Ceiling(Padding):
    """Padding that none exceeds on ``ranks``, and on less than ``SPAN`` times as many."""

    def __missing__(self, size: int) -> int:
        return SPAN * self.ranks - 1


Forms = frozenset[Form]
"""Levels of which one is the highest, which one depends on the ranks."""

NOTHING: Forms = frozenset({Form(0, ())})
NEVER: Forms = frozenset()


def highest(forms: Iterable[Form], padding: Padding) -> int:
    """Bytes of the highest level."""
    return max([form.at(padding) for form in forms])
