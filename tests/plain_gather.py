"""Gathering replayed for one number of ranks: slow and simple, against ``zero_sizer.zero.gather``.

The same rules written down a second time: levels are numbers, and nothing is kept between calls.
"""

from bisect import bisect_left
from dataclasses import dataclass, field

from zero_sizer.units import round_up
from zero_sizer.zero.gather import Limits, Visit


@dataclass(frozen=True)
class Trace:
    """Visits of modules in the order they run, parameters' elements, ranks."""

    numels: tuple[int, ...]
    persistent: tuple[bool, ...]
    visits: tuple[Visit, ...]
    ranks: int
    kept: frozenset[int] = frozenset()

    @property
    def modules(self) -> list[tuple[int, ...]]:
        return [visit.parameters for visit in self.visits if visit.begins]


@dataclass
class _Batch:
    """Parameters gathered by one call."""

    flat_numel: int
    waiting: set[int]
    copied: bool = False


@dataclass
class _State:
    trace: Trace
    limits: Limits
    queue: list[tuple[int, int]]  # (parameter, step it is used at), front at ``head``
    head: int = 0
    available: int = 0
    numel: int = 0  # elements held by gathered tensors and gather buffers now
    resident: dict[int, int] = field(default_factory=dict)  # parameter -> elements of its own copy
    left: dict[int, list[int]] = field(default_factory=dict)  # released, but referred to
    inflight: dict[int, _Batch] = field(default_factory=dict)
    fetched_for: dict[int, int] = field(default_factory=dict)


def gathered_numels(trace: Trace, limits: Limits) -> tuple[tuple[int, int], ...]:
    """Elements of gathered parameters and their buffers at each visit: its peak, and after it.

    Persistent parameters are not counted: they have an entry of their own. With one rank nothing
    is gathered.
    """
    if not trace.ranks:
        return ((0, 0),) * len(trace.visits)
    queue = [(i, step) for step, module in enumerate(trace.modules) for i in module]
    state = _State(trace, limits, queue)
    state.resident = {i: 0 for i, persistent in enumerate(trace.persistent) if persistent}
    reuse = _Reuse(trace, limits.max_reuse_distance)
    levels = []
    step, over = 0, ()
    for visit in trace.visits:
        peak = 0
        if visit.begins:
            _release(state, reuse, step, over)
            peak = _fetch(state, step, visit.parameters)
            step, over = step + 1, visit.parameters if visit.ends else ()
        else:
            _release(state, reuse, step, visit.parameters)
        levels.append((max(peak, state.numel), state.numel))
    return tuple(levels)


def _fetch(state: _State, step: int, module: tuple[int, ...]) -> int:
    _gather(state, [i for i in module if _absent(state, i)])
    peak = state.numel
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
        _prefetch(state)
    return peak


def _prefetch(state: _State) -> None:
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
    _gather(state, list(chosen))


def _absent(state: _State, i: int) -> bool:
    return i not in state.resident and i not in state.inflight


def _gather(state: _State, parameters: list[int]) -> None:
    numels = [round_up(state.trace.numels[i], state.trace.ranks) for i in parameters]
    state.numel += sum(numels)
    state.available += sum(state.trace.numels[i] for i in parameters)
    if state.trace.ranks == 1:
        batches = [_Batch(n, {i}) for i, n in zip(parameters, numels, strict=True)]
    else:
        batches = [_Batch(sum(numels), set(parameters))] * len(parameters)
    state.inflight.update(zip(parameters, batches, strict=True))


def _wait(state: _State, i: int) -> int:
    """Finish the gather of ``i``; the peak while its copy is made."""
    batch = state.inflight.pop(i, None)
    if batch is None:
        return 0
    batch.waiting.discard(i)
    if not batch.copied:
        batch.copied = True
        if not batch.waiting:  # a tensor gathered alone lies in the gathered buffer itself
            state.resident[i] = batch.flat_numel
            return 0
        for j in (i, *batch.waiting):
            state.resident[j] = state.trace.numels[j]
            state.numel += state.trace.numels[j]
    peak = state.numel
    if not batch.waiting:  # the last one: nothing refers to the flat buffer any more
        state.numel -= batch.flat_numel
    return peak


def _release(state: _State, reuse: "_Reuse", next_step: int, module: tuple[int, ...]) -> None:
    for i in module:
        skipped = state.fetched_for.get(i, -1) > next_step
        if state.trace.persistent[i] or skipped or reuse.is_near(i, next_step):
            continue
        held = state.resident.pop(i, None)
        if held is not None:
            state.left.setdefault(i, []).append(held)
            state.available -= state.trace.numels[i]
        if i not in state.trace.kept or not reuse.is_used(i, next_step):
            state.numel -= sum(state.left.pop(i, ()))


class _Reuse:
    """Whether a parameter is used again within ``distance`` elements of the trace."""

    def __init__(self, trace: Trace, distance: int) -> None:
        self._distance = distance
        self._before = [0]  # elements of all modules before each step
        self._uses: dict[int, list[int]] = {}
        for step, module in enumerate(trace.modules):
            self._before.append(self._before[-1] + sum(trace.numels[i] for i in module))
            for i in module:
                self._uses.setdefault(i, []).append(step)

    def is_used(self, i: int, step: int) -> bool:
        """Whether parameter ``i`` is used from ``step`` on."""
        return self._uses[i][-1] >= step

    def is_near(self, i: int, step: int) -> bool:
        """Whether the walk from ``step`` on meets parameter ``i`` before it gives up."""
        uses = self._uses[i]
        position = bisect_left(uses, step)
        if position == len(uses):
            return False
        return self._before[uses[position]] - self._before[step] < self._distance
