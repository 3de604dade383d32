"""Gathering replayed for one number of ranks: slow and simple, against ``zero_sizer.zero.replay``.

The same rules written down a second time: levels are numbers, and nothing is kept between calls.
"""

from dataclasses import dataclass, field

from zero_sizer.units import ceil_div, round_up
from zero_sizer.zero.reuse import Visit
from zero_sizer.zero.secondary import NONE, Secondary
from zero_sizer.zero.trace import Limits


@dataclass(frozen=True)
class Trace:
    """Visits of modules in the order they run, parameters' elements and bytes of one, ranks.

    ``gather_itemsizes``: bytes of an element while parameters are gathered. ``is_first``:
    persistent ones are gathered by the first that uses them.
    """

    numels: tuple[int, ...]
    itemsizes: tuple[int, ...]
    gather_itemsizes: tuple[int, ...]
    persistent: tuple[bool, ...]
    visits: tuple[Visit, ...]
    ranks: int
    is_parked: bool = False
    kept: frozenset[int] = frozenset()
    recomputed: frozenset[int] = frozenset()
    secondary: Secondary = NONE
    is_first: bool = False

    def num_bytes(self, i: int) -> int:
        return self.numels[i] * self.itemsizes[i]

    def buffered(self, i: int) -> int:
        return round_up(self.numels[i], self.ranks) * self.gather_itemsizes[i]

    def partition(self, i: int, itemsizes: tuple[int, ...]) -> int:
        return ceil_div(self.numels[i], self.ranks) * itemsizes[i]

    def casts(self, i: int) -> bool:
        return self.itemsizes[i] != self.gather_itemsizes[i]

    @property
    def modules(self) -> list[tuple[int, ...]]:
        return [visit.parameters for visit in self.visits if visit.begins]


@dataclass
class _Batch:
    """Parameters gathered by one call, in the order of their buffers."""

    members: tuple[int, ...]
    waiting: set[int]
    copied: bool = False


@dataclass
class _State:
    trace: Trace
    limits: Limits
    queue: list[tuple[int, int]]  # (parameter, step it is used at), front at ``head``
    head: int = 0
    available: int = 0
    held: int = 0  # bytes of gathered tensors and gather buffers now
    resident: dict[int, int] = field(default_factory=dict)  # parameter -> bytes of its own copy
    left: dict[int, list[int]] = field(default_factory=dict)  # released, but referred to
    inflight: dict[int, _Batch] = field(default_factory=dict)
    fetched_for: dict[int, int] = field(default_factory=dict)
    made: set[int] = field(default_factory=set)  # those with a secondary partition


def gathered_bytes(trace: Trace, limits: Limits) -> tuple[tuple[int, int], ...]:
    """Bytes of gathered parameters and their buffers at each visit: its peak, and after it.

    Persistent parameters are not counted: they have an entry of their own. With one rank nothing
    is gathered.
    """
    if not trace.ranks:
        return ((0, 0),) * len(trace.visits)
    queue = [(i, step) for step, module in enumerate(trace.modules) for i in module]
    state = _State(trace, limits, queue)
    if not trace.is_first:
        state.resident = {i: 0 for i, persistent in enumerate(trace.persistent) if persistent}
    levels = []
    step, over = 0, Visit(())
    for visit in trace.visits:
        peak = 0
        if visit.begins:
            peak = _release(state, step, over)
            peak = max(peak, _fetch(state, step, visit.parameters))
            step, over = step + 1, visit if visit.ends else Visit(())
        else:
            peak = _release(state, step, visit)
        for i in visit.passed:
            state.held -= sum(state.left.pop(i, ()))
        levels.append((max(peak, state.held), state.held))
    return tuple(levels)


def _fetch(state: _State, step: int, module: tuple[int, ...]) -> int:
    peak = _gather(state, [i for i in module if _absent(state, i)])
    for i in module:
        peak = max(peak, _wait(state, i))
    pending = {i for i in module if state.fetched_for.get(i, -1) < step}
    discarded: set[int] = set()
    while state.head < len(state.queue) and len(discarded) < len(pending):
        i, used_at = state.queue[state.head]
        state.head += 1
        state.fetched_for[i] = used_at
        discarded.add(i)
    if state.limits.prefetch_bucket_size > 0:
        peak = max(peak, _prefetch(state))
    return peak


def _prefetch(state: _State) -> int:
    limit = min(
        state.limits.max_live_parameters - state.available, state.limits.prefetch_bucket_size
    )
    chosen: dict[int, None] = {}
    numel = 0
    while state.head < len(state.queue) and numel < limit:
        i, used_at = state.queue[state.head]
        state.head += 1
        state.fetched_for[i] = max(state.fetched_for.get(i, -1), used_at)
        if _absent(state, i) and i not in chosen:
            chosen[i] = None
            numel += state.trace.numels[i]
    return _gather(state, list(chosen))


def _absent(state: _State, i: int) -> bool:
    return i not in state.resident and i not in state.inflight


def _gather(state: _State, parameters: list[int]) -> int:
    """Start a gather; the highest level while it is made, partitions on their way included."""
    trace = state.trace
    members = tuple(sorted(parameters, key=lambda i: (trace.gather_itemsizes[i], i)))
    state.available += sum(trace.numels[i] for i in parameters)
    if trace.ranks == 1:
        state.held += sum(trace.buffered(i) for i in members)
        state.inflight.update({i: _Batch((i,), {i}) for i in members})
        return state.held
    batch = _Batch(members, set(members))
    state.inflight.update(dict.fromkeys(members, batch))
    peak = state.held
    for size in sorted({trace.gather_itemsizes[i] for i in members}):
        buffer = [i for i in members if trace.gather_itemsizes[i] == size]
        state.held += sum(trace.buffered(i) for i in buffer)
        level = state.held
        for i in buffer:
            own, cast = (
                trace.partition(i, trace.itemsizes),
                trace.partition(i, trace.gather_itemsizes),
            )
            if trace.is_parked:
                level += own
                peak = max(peak, level)
            if trace.casts(i):
                level += cast
                peak = max(peak, level)
                level -= own if trace.is_parked else 0
        peak = max(peak, level)
    return peak


def _wait(state: _State, i: int) -> int:
    """Finish the gather of ``i``; the peak while copies are made."""
    trace = state.trace
    batch = state.inflight.pop(i, None)
    if batch is None:
        return 0
    batch.waiting.discard(i)
    peak = 0
    if not batch.copied:
        batch.copied = True
        is_alone = len(batch.members) == 1
        if is_alone and not trace.casts(i):  # it lies in the gathered buffer itself
            state.resident[i] = trace.buffered(i)
            state.held -= trace.buffered(i) if trace.persistent[i] else 0
            return 0
        for j in batch.members:
            state.resident[j] = trace.num_bytes(j)
            state.held += 0 if trace.persistent[j] else trace.num_bytes(j)
            between = (
                trace.numels[j] * trace.gather_itemsizes[j]
                if trace.casts(j) and not is_alone
                else 0
            )
            peak = max(peak, state.held + between)
    peak = max(peak, state.held)
    if not batch.waiting:  # the last one: nothing refers to the buffers any more
        state.held -= sum(trace.buffered(j) for j in batch.members)
    return peak


def _release(state: _State, next_step: int, visit: Visit) -> int:
    trace, peak = state.trace, 0
    begun = [v for v in trace.visits if v.begins]
    uses = [v.parameters for v in begun[next_step:]]
    if visit.direct is None:
        walk = [v.parameters if v.direct is None else v.direct for v in begun[next_step:]]
    else:
        walk = [v.parameters if v.inside is None else v.inside for v in begun[next_step:]]
    near = _near(walk, trace, state.limits.max_reuse_distance, visit.parameters)
    for i in visit.parameters:
        saved = i in visit.saves or (visit.recomputes and i in trace.recomputed)
        if not saved and i not in trace.kept:  # its backward is over
            state.held -= sum(state.left.pop(i, ()))
        skipped = state.fetched_for.get(i, -1) > next_step
        if trace.persistent[i] or skipped or i in near:
            continue
        held = state.resident.pop(i, None)
        if held is not None:
            ranks, itemsizes, made, _ = trace.secondary
            if ranks and i not in made and i not in state.made:
                state.made.add(i)
                padded = round_up(trace.numels[i], trace.ranks)
                state.held += padded // ranks * itemsizes[i]
                peak = max(peak, state.held)
            state.left.setdefault(i, []).append(held)
            state.available -= trace.numels[i]
        if not (saved or i in trace.kept) or not any(i in module for module in uses):
            state.held -= sum(state.left.pop(i, ()))
    return peak


def _near(
    walk: list[tuple[int, ...]], trace: Trace, distance: int, wanted: tuple[int, ...]
) -> set[int]:
    """Those of ``wanted`` that the walk meets before it gives up."""
    met: set[int] = set()
    passed = 0
    for module in walk:
        if passed >= distance or met == set(wanted):
            break
        met.update(i for i in wanted if i in module)
        passed += sum(trace.numels[i] for i in module)
    return met
