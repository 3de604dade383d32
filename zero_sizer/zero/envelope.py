"""Of many that hold something, a few of which one holds most at any time."""

from collections.abc import Iterable, Sequence
from heapq import heappush, heapreplace
from operator import itemgetter

Change = tuple[int, int, int, int]
"""One of them holds more from then on, or less: when, in which turn, which, and how much more.

Of changes at the same time those with a lower turn come first.
"""


_WHEN = itemgetter(0, 1)


def highest(holders: int, changes: Iterable[Change], least: int) -> set[int]:
    """Holders, of which at any time one holds as much as any other, up to ``least``."""
    found = sorted(changes, key=_WHEN)
    if all(change[3] >= 0 for change in found):
        return _highest_rising(holders, found, least)
    held, met, top = [0] * holders, {0}, 0  # ``top`` holds most of those met
    heap, of_met = [(0, holder) for holder in range(holders)], [(0, 0)]
    may_differ, last = False, len(found) - 1
    for at, (time, turn, holder, amount) in enumerate(found):
        now = held[holder] = held[holder] + amount
        if amount > 0:  # an entry that says too much is mended when it is the first
            heappush(heap, (-now, holder))
            if holder not in met:
                may_differ |= now > held[top] + least
            else:
                heappush(of_met, (-now, holder))
                top = holder if now > held[top] else top
        else:
            may_differ |= holder == top
        if not may_differ or (at < last and found[at + 1][:2] == (time, turn)):
            continue
        may_differ = False
        most, top = _top(heap, held), _top(of_met, held)
        if held[most] > held[top] + least:
            top = most
            met.add(most)
            heappush(of_met, (-held[most], most))
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
    """Who holds most of those in ``heap``, whose entries say too much where one holds less now."""
    while heap[0][0] != -held[heap[0][1]]:
        holder = heap[0][1]
        heapreplace(heap, (-held[holder], holder))
    return heap[0][1]
