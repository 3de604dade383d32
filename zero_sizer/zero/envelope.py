"""Of many that hold something, a few of which one holds most at any time."""

from collections.abc import Iterable, Sequence
from heapq import heapify, heappop, heappush
from itertools import pairwise
from operator import itemgetter

Change = tuple[int, int, int, int]
"""One of them holds more from then on, or less: when, in which turn, which, and how much more.

Of changes at the same time those with a lower turn come first.
"""


_WHEN = itemgetter(0, 1)


def tops(
    starts: Sequence[int], changes: Iterable[tuple[int, int, int]], last: int
) -> tuple[list[int], list[int]]:
    """The most that any holder has at each of the times 0 to ``last``, and which has it.

    Args:
        starts: what each holds at first.
        changes: time, how much more, and which holder.
        last: the last time.
    """
    held = list(starts)
    at: dict[int, list[tuple[int, int]]] = {}
    for time, amount, holder in changes:
        at.setdefault(time, []).append((holder, amount))
    heap = [(-amount, holder) for holder, amount in enumerate(held)]
    heapify(heap)
    most, holders = [], []
    for time, until in pairwise((0, *sorted(at.keys() - {0}), last + 1)):
        for holder, amount in at.get(time, ()):
            held[holder] += amount
            heappush(heap, (-held[holder], holder))
        _top(heap, held)
        most += [-heap[0][0]] * (until - time)
        holders += [heap[0][1]] * (until - time)
    return most, holders


def highest(holders: int, changes: Iterable[Change], least: int) -> set[int]:
    """Holders, of which at any time one holds as much as any other, up to ``least``."""
    found = sorted(changes, key=_WHEN)
    if all(change[3] >= 0 for change in found):
        return _highest_rising(holders, found, least)
    held = [0] * holders
    heap, of_found = [(0, holder) for holder in range(holders)], [(0, 0)]
    met = {0}
    for at, (time, turn, holder, amount) in enumerate(found):
        held[holder] += amount
        entry = (-held[holder], holder)
        heappush(heap, entry)
        if holder in met:
            heappush(of_found, entry)
        if at + 1 < len(found) and found[at + 1][:2] == (time, turn):
            continue
        most = _top(heap, held)
        if held[most] > held[_top(of_found, held)] + least:
            met.add(most)
            heappush(of_found, (-held[most], most))
    return met


def _highest_rising(holders: int, changes: Sequence[Change], least: int) -> set[int]:
    """``highest`` where nobody ever holds less than before: no heap is needed."""
    held = [0] * holders
    met, of_met, most, where = {0}, 0, 0, 0
    for at, (time, turn, holder, amount) in enumerate(changes):
        now = held[holder] = held[holder] + amount
        if now > most or (now == most and holder < where):
            most, where = now, holder
        if now > of_met and holder in met:
            of_met = now
        if most > of_met + least:
            if at + 1 < len(changes) and changes[at + 1][:2] == (time, turn):
                continue
            met.add(where)
            of_met = most
    return met


def _top(heap: list[tuple[int, int]], held: Sequence[int]) -> int:
    """Who holds most of those in ``heap``, whose outdated entries are dropped."""
    while heap[0][0] != -held[heap[0][1]]:
        heappop(heap)
    return heap[0][1]
