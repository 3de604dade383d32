"""Equal blocks in a trace, which are replayed until they repeat themselves and then passed over.

The blocks of a model differ in the indices of their parameters alone, by the same shift from one
to the next. So what a replay does in one follows from the state in which it enters it, as seen
from there. Where two blocks in a row were entered in the same state, all further ones are, as long
as nothing looks beyond them: into the queue of what is fetched ahead, or along the trace for the
next use. ``Replay.state`` (``zero_sizer.zero.gather``) is moved over those.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from zero_sizer.util.identity import Identity
from zero_sizer.zero.gather import Asked, State
from zero_sizer.zero.reuse import Visit
from zero_sizer.zero.trace import Trace


class Run(NamedTuple):
    """Equal blocks in a row.

    Attributes:
        start: number of the first block's first visit.
        length: visits of a block.
        blocks: how many.
        base: least parameter of the first block.
        shift: parameters from a block to the next; negative in backward.
        begun: visits of a block that begin a module.
        queued: entries of a block in the queue of what is fetched.
    """

    start: int
    length: int
    blocks: int
    base: int
    shift: int
    begun: int
    queued: int

    @property
    def visits(self) -> int:
        """All of them."""
        return self.length * self.blocks

    def meets(self, other: "Run") -> bool:
        """True if both have a visit in common."""
        return self.start < other.start + other.visits and other.start < self.start + self.visits

    def parameters(self, block: int) -> range:
        """Indices between the least of a block and that of its neighbour."""
        first = self.base + block * self.shift
        return range(first, first + abs(self.shift))


def runs_of(trace: Trace, blocks: tuple[tuple[int, ...], ...]) -> dict[int, Run]:
    """The runs of a trace by their first visit.

    Args:
        trace: any.
        blocks: of lists of blocks, the number of the first visit of each and one past the last.
    """
    if trace.swapped is not None:  # which buffers are free is no part of ``Seen``
        return {}
    found, kinds = _of_visits(Identity(trace.visits), blocks), _kinds(trace)
    chosen: dict[int, Run] = {}
    for run in sorted(found, key=lambda run: run.visits, reverse=True):
        if not any(run.meets(other) for other in chosen.values()) and _are_alike(run, kinds):
            chosen[run.start] = run
    return chosen


@lru_cache(maxsize=64)
def _of_visits(visits: Identity, blocks: tuple[tuple[int, ...], ...]) -> list[Run]:
    runs = (_run(visits.of, starts) for starts in blocks)
    return [run for run in runs if run is not None]


def _run(visits: Sequence[Visit], starts: Sequence[int]) -> Run | None:
    """The run of blocks that begin at ``starts``; None where they differ."""
    first = visits[starts[0] : starts[1]]
    owned = [i for visit in first for i in _indices(visit)]
    second = [i for visit in visits[starts[1] : starts[2]] for i in _indices(visit)]
    if not owned or len(owned) != len(second):
        return None
    base, shift = min(owned), min(second) - min(owned)
    if not shift or max(owned) - base >= abs(shift):
        return None
    for block, start in enumerate(starts[:-1]):
        here = visits[start : starts[block + 1]]
        by = block * shift
        if len(here) != len(first) or not all(
            _is_shifted(visit, of, by) for visit, of in zip(here, first, strict=True)
        ):
            return None
    begun = [visit for visit in first if visit.begins]
    queued = sum(len(visit.parameters) for visit in begun)
    return Run(starts[0], len(first), len(starts) - 1, base, shift, len(begun), queued)


def _indices(visit: Visit) -> Iterator[int]:
    for field in (visit.parameters, visit.direct, visit.inside, visit.passed, visit.saves):
        yield from field or ()


def _is_shifted(visit: Visit, of: Visit, by: int) -> bool:
    """Whether a visit is another one of parameters ``by`` further."""
    if len(visit.parameters) != len(of.parameters) or visit[1:3] != of[1:3]:
        return False
    if [i - by for i in visit.parameters] != list(of.parameters):
        return False
    if visit[3:] == of[3:] == _OWN_ALONE:  # most are
        return True
    flags = (visit.recomputes, visit.within) == (of.recomputes, of.within)
    return flags and all(
        _moved(mine, -by) == other
        for mine, other in (
            (visit.direct, of.direct),
            (visit.inside, of.inside),
            (visit.passed, of.passed),
            (visit.saves, of.saves),
        )
    )


_OWN_ALONE = Visit(())[3:]
"""What a visit says beside its own parameters, where nothing."""


def _moved(indices: tuple[int, ...] | None, by: int) -> tuple[int, ...] | None:
    return None if indices is None else tuple([i + by for i in indices])


def _kinds(trace: Trace) -> list[tuple[Any, ...]]:
    """Of each parameter all that a replay asks about it."""
    secondary, everything = trace.secondary, range(len(trace.numels))
    itemsizes = secondary.itemsizes or (0,) * len(trace.numels)
    sets = (trace.kept, trace.recomputed, trace.lent, secondary.made, secondary.counted)
    flags = [[i in chosen for i in everything] for chosen in sets]
    rows = (trace.numels, trace.itemsizes, trace.gather_itemsizes, trace.persistent, itemsizes)
    return list(zip(*rows, *flags, strict=True))


def _are_alike(run: Run, kinds: list[tuple[Any, ...]]) -> bool:
    first, *others = (run.parameters(block) for block in range(run.blocks))
    of_first = kinds[first.start : first.stop]
    return all(kinds[other.start : other.stop] == of_first for other in others)


class Seen(NamedTuple):
    """A state as a block of a run finds it when it begins; equal where what follows is.

    Attributes:
        now: what is held, how much is available, what is about to be released and fetched.
        flying: gathers under way, and parameters that are lent.
        behind: the two blocks before; empty where the block before found another ``now``.
        ahead: this block and those after it; empty then, too.
        secondary: secondary partitions by size, which do not matter to what follows.
        num_made: parameters that have one.
    """

    now: tuple[Any, ...]
    flying: tuple[Any, ...]
    behind: tuple[Any, ...]
    ahead: tuple[Any, ...]
    secondary: dict[tuple[int, int], int]
    num_made: int

    def repeats(self, before: "Seen") -> bool:
        """True if the block before found the same, as seen from there."""
        if not before.ahead or self[:3] != before[:3]:
            return False
        return self.ahead == before.ahead[: len(self.ahead)]


def seen(
    state: State, run: Run, block: int, step: int, over: int | None, before: Seen | None
) -> Seen:
    """The state in which ``block`` begins.

    Args:
        state: then.
        run: the blocks.
        block: which of them; the third at least.
        step: modules that have begun.
        over: number of the visit that is to be released next.
        before: what the block before found.
    """
    first = run.base + block * run.shift
    batches: dict[int, int] = {}
    flying = []
    for i, batch in state.inflight.items():
        known = batches.setdefault(id(batch), len(batches))
        members = tuple([member - first for member in batch.members])
        waiting = tuple(sorted([member - first for member in batch.waiting]))
        flying.append((i - first, known, members, waiting, batch.in_place, batch.copied))
    padded = tuple(sorted([item for item in state.padded.items() if item[1]]))
    place = state.head - block * run.queued
    number = run.start + block * run.length
    released = None if over is None else over - number
    found = Seen(
        now=(state.num_bytes, state.available, padded, place, released),
        flying=(*flying, *[i - first for i in state.lent]),
        behind=(),
        ahead=(),
        secondary=dict(state.secondary),
        num_made=len(state.made),
    )
    if before is None or found.now != before.now:
        return found
    return found._replace(
        behind=tuple([_of_block(state, run.parameters(block - n), step) for n in (2, 1)]),
        ahead=tuple([_of_block(state, run.parameters(n), step) for n in range(block, run.blocks)]),
    )


_OfBlock = tuple[tuple[bool | None, tuple[bool, ...], bool, int], ...]


def _of_block(state: State, parameters: range, step: int) -> _OfBlock:
    """Of each parameter how it lies, what of it is left, whether it was cut, when it is due."""
    resident, left, due, made = state.resident, state.left, state.fetched_for, state.made
    return tuple(
        [
            (resident.get(i), tuple(left.get(i, ())), i in made, max(due.get(i, -1) - step, -1))
            for i in parameters
        ]
    )


def skippable(run: Run, block: int, head: int, queue_end: int, asked: Sequence[Asked]) -> int:
    """How many blocks from ``block`` on are as the one before, which asked so for next uses.

    Uses lie as far ahead from every block, or farther by the same from each to the next: an answer
    that is the same at the last is the same in between.
    """
    low, high = 0, min((queue_end - head) // run.queued, run.blocks - block)
    while low < high:
        middle = (low + high + 1) // 2
        i_by, step_by = middle * run.shift, middle * run.begun
        same = all(
            reuse.is_near(i + i_by, step + step_by) is answer for reuse, i, step, answer in asked
        )
        low, high = (middle, high) if same else (low, middle - 1)
    return low


def move(state: State, run: Run, block: int, by: int, step: int, before: Seen) -> None:
    """Move a state that finds ``block`` over that and more blocks, ``by`` in all.

    Args:
        state: it is changed.
        run: the blocks.
        block: the one that begins.
        by: at least 1.
        step: modules that have begun.
        before: what the block before found.
    """
    found = {n: _of_block(state, run.parameters(n), step) for n in range(block - 2, run.blocks)}
    shift = by * run.shift
    new_step = step + by * run.begun
    for n in range(block - 1, run.blocks):
        source = block - 2 if n < block + by - 1 else n - by
        for i, (lies, left, _, due) in zip(run.parameters(n), found[source], strict=True):
            _put(state.resident, i, lies, is_there=lies is not None)
            _put(state.left, i, list(left), is_there=bool(left))
            _put(state.fetched_for, i, new_step + due, is_there=due >= 0)
    moved: dict[int, Any] = {}
    for batch in state.inflight.values():
        moved.setdefault(id(batch), batch.moved(shift))
    state.inflight = {i + shift: moved[id(batch)] for i, batch in state.inflight.items()}
    state.lent = {i + shift: None for i in state.lent}
    state.head += by * run.queued
    made = list(state.made)[before.num_made :]
    for number in range(1, by + 1):
        state.made.update(dict.fromkeys([i + number * run.shift for i in made]))
    for key, count in state.secondary.items():
        state.secondary[key] = count + by * (count - before.secondary.get(key, 0))
    state.form_changed()


def _put(found: dict[int, Any], i: int, value: Any, *, is_there: bool) -> None:
    if is_there:
        found[i] = value
    else:
        found.pop(i, None)
