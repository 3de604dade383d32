"""Stretches of a row that come again and again."""

from collections.abc import Hashable, Iterator, Sequence

_LEAST = 4  # times


def periods(row: Sequence[Hashable]) -> Iterator[tuple[int, int, int]]:
    """Stretches that are repeated at least four times, one after the other, from the first on.

    Yields:
        Where the first begins, how long it is, and how often it comes: of those that begin there
        the one that most follows from, of equals the shortest.
    """
    numbers: dict[Hashable, int] = {}
    marks = [numbers.setdefault(mark, len(numbers)) for mark in row]
    start = 0
    while start < len(marks):
        longest = (len(marks) - start) // _LEAST
        found = [(p, _times(marks, start, p)) for p in range(1, longest + 1)]
        found = [(p, times) for p, times in found if times >= _LEAST]
        if not found:
            start += 1
            continue
        period, times = max(found, key=lambda one: (one[0] * (one[1] - 1), -one[0]))
        yield start, period, times
        start += period * times


def _times(marks: Sequence[int], start: int, period: int) -> int:
    first, times = marks[start : start + period], 1
    while marks[start + times * period : start + (times + 1) * period] == first:
        times += 1
    return times
