"""Which stage-3 parameters are gathered at which point of a step.

DeepSpeed decides it deterministically from the order in which modules run; this follows
deepspeed 0.19.8 runtime/zero/partitioned_param_coordinator.py: fetch (``_fetch_sub_module_impl``),
prefetch, and release (``__params_to_release``), in the steady state (trace complete), and the
buffers of runtime/zero/partition_parameters.py (``AllGatherCoalescedHandle``): several tensors
gathered together share one flat buffer that lives until each of them has been waited for, beside
the tensors copied out of it.

What is gathered when does not depend on the number of ranks, only the padding of gathered tensors
does. So levels are kept as forms: elements, and how many tensors of which size lie padded.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from zero_sizer.zero.partition import padded


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The ``zero_optimization.stage3_*`` keys that steer gathering, in elements."""

    prefetch_bucket_size: int
    max_live_parameters: int
    max_reuse_distance: int


class Visit(NamedTuple):
    """A module begins to run, has run, or both: then it is over where the next one begins.

    Attributes:
        parameters: indices of those it owns.
        begins: they are fetched.
        ends: they are released.
        direct: those that it owns itself, where it is a leaf; None: it is none.
        inside: all within it; None: ``parameters``.
        passed: those that backward is done with; what is kept of them goes.
    """

    parameters: tuple[int, ...]
    begins: bool = True
    ends: bool = False
    direct: tuple[int, ...] | None = None
    inside: tuple[int, ...] | None = None
    passed: tuple[int, ...] = ()


@dataclass(frozen=True)
class Trace:
    """Modules in the order they run.

    Attributes:
        numels: elements of each parameter.
        itemsizes: bytes per element of each.
        persistent: whether each stays gathered.
        visits: of modules, forward pass then backward pass.
        is_parked: partitions lie on the host or NVMe.
        kept: what gathered them stays referred to until their last use, released or not.
        one_by_one: each parameter is brought by itself: one rank, offloaded (``NoGatherHandle``).
    """

    numels: tuple[int, ...]
    itemsizes: tuple[int, ...]
    persistent: tuple[bool, ...]
    visits: tuple[Visit, ...]
    one_by_one: bool
    is_parked: bool
    kept: frozenset[int] = frozenset()

    @property
    def modules(self) -> list[tuple[int, ...]]:
        """Parameters of each module that begins to run: what DeepSpeed's own trace holds."""
        return [visit.parameters for visit in self.visits if visit.begins]


class Form(NamedTuple):
    """What gathered tensors and gather buffers hold, for any number of ranks.

    Attributes:
        num_bytes: without padding.
        padded: elements, bytes of an element and count of the tensors that lie there padded.
        brought: elements and bytes of an element of the tensors whose partitions lie beside them.
    """

    num_bytes: int
    padded: tuple[tuple[int, int, int], ...]
    brought: tuple[tuple[int, int], ...] = ()

    def at(self, padding: "Padding") -> int:
        """Bytes, padding included."""
        total = self.num_bytes
        for size, each, count in self.padded:
            total += count * each * padding[size]
        for size, each in self.brought:
            total += (size + padding[size]) // padding.ranks * each
        return total


class Padding(dict[int, int]):
    """Elements that a tensor of so many is padded by, for a number of ranks; filled when asked."""

    def __init__(self, ranks: int) -> None:
        super().__init__()
        self.ranks = ranks

    def __missing__(self, size: int) -> int:
        found = self[size] = padded(size, self.ranks) - size
        return found


Forms = frozenset[Form]
"""Levels of which one is the highest, which one depends on the ranks."""

NOTHING: Forms = frozenset({Form(0, ())})
NEVER: Forms = frozenset()


def highest(forms: Iterable[Form], padding: Padding) -> int:
    """Bytes of the highest level."""
    return max([form.at(padding) for form in forms])


def gathered(trace: Trace, limits: Limits) -> list[tuple[Forms, Forms]]:
    """Gathered parameters and their buffers at each visit: while it is made, and from then on.

    Persistent parameters are not counted: they have an entry of their own.
    """
    queue = [(i, step) for step, module in enumerate(trace.modules) for i in module]
    state = _State(trace, limits, queue)
    state.resident = {i: False for i, persistent in enumerate(trace.persistent) if persistent}
    reuse = _Reuses(trace, limits.max_reuse_distance)
    levels = []
    known: dict[Forms, Forms] = {}
    step = 0
    over: Visit | None = None
    for visit in trace.visits:
        during: set[Form] = set()
        if visit.begins:
            if over is not None:
                _release(state, reuse, step, over)
            during = _fetch(state, step, visit.parameters)
            step, over = step + 1, visit if visit.ends else None
        else:
            _release(state, reuse, step, visit)
        for i in visit.passed:
            state.forget(i)
        after = frozenset([state.form()])
        forms = frozenset(during)
        levels.append((known.setdefault(forms, forms), known.setdefault(after, after)))
    return levels


@dataclass
class _Batch:
    """Parameters gathered into one buffer: those of one dtype in one call.

    Attributes:
        members: of the buffer.
        waiting: those that nobody has waited for yet.
        is_alone: the call gathered one parameter, which lies in the buffer itself.
        copied: whether they have been copied out.
    """

    members: tuple[int, ...]
    waiting: set[int]
    is_alone: bool
    copied: bool = False


@dataclass
class _State:
    trace: Trace
    limits: Limits
    queue: list[tuple[int, int]]  # (parameter, step it is used at), front at ``head``
    head: int = 0
    available: int = 0
    num_bytes: int = 0  # of gathered tensors and gather buffers now, without padding
    padded: dict[tuple[int, int], int] = field(default_factory=dict)  # those that lie padded
    resident: dict[int, bool] = field(default_factory=dict)  # parameter -> lies padded
    left: dict[int, list[bool]] = field(default_factory=dict)  # released, but referred to
    inflight: dict[int, _Batch] = field(default_factory=dict)
    fetched_for: dict[int, int] = field(default_factory=dict)
    _form: Form | None = None

    def form(self) -> Form:
        """What is held now."""
        if self._form is None:
            padded = tuple(sorted([(*k, n) for k, n in self.padded.items() if n]))
            self._form = Form(self.num_bytes, padded)
        return self._form

    def forget(self, parameter: int) -> None:
        """Nothing refers to what was released of it."""
        for is_padded in self.left.pop(parameter, ()):
            self.hold((parameter,), -1, is_padded=is_padded)

    def hold(self, parameters: Sequence[int], sign: int, *, is_padded: bool) -> None:
        """Tensors come (``sign`` 1) or go (-1)."""
        self._form = None
        for i in parameters:
            key = size, itemsize = self.trace.numels[i], self.trace.itemsizes[i]
            self.num_bytes += sign * size * itemsize
            if is_padded:
                self.padded[key] = self.padded.get(key, 0) + sign


def _fetch(state: _State, step: int, module: tuple[int, ...]) -> set[Form]:
    peaks = _gather(state, [i for i in module if _absent(state, i)])
    for i in module:
        peaks |= _wait(state, i)
    pending = {i for i in module if state.fetched_for.get(i, -1) < step}
    discarded: set[int] = set()
    while state.head < len(state.queue) and len(discarded) < len(pending):
        i, used_at = state.queue[state.head]
        state.head += 1
        state.fetched_for[i] = used_at
        discarded.add(i)
    if state.limits.prefetch_bucket_size > 0:
        peaks |= _prefetch(state)
    return peaks


def _prefetch(state: _State) -> set[Form]:
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


def _gather(state: _State, parameters: list[int]) -> set[Form]:
    """Start a gather; the levels while it is made.

    Parked partitions are brought to the GPU first, those of one dtype together
    (partition_parameters.py:1394-1399, _all_gather_dtype).
    """
    if not parameters:
        return {state.form()}
    state.hold(parameters, 1, is_padded=True)
    state.available += sum(state.trace.numels[i] for i in parameters)
    if state.trace.one_by_one:
        state.inflight.update({i: _Batch((i,), {i}, is_alone=True) for i in parameters})
        return {state.form()}
    itemsizes, numels = state.trace.itemsizes, state.trace.numels
    found = {state.form()}
    for itemsize in dict.fromkeys(itemsizes[i] for i in parameters):
        same = [i for i in parameters if itemsizes[i] == itemsize]
        batch = _Batch(tuple(same), set(same), is_alone=len(parameters) == 1)
        state.inflight.update(dict.fromkeys(same, batch))
        if state.trace.is_parked:
            brought = tuple(sorted((numels[i], itemsize) for i in same))
            found.add(state.form()._replace(brought=brought))
    return found


def _wait(state: _State, i: int) -> set[Form]:
    """Finish the gather of ``i``; the level while its copy is made, if one is."""
    batch = state.inflight.pop(i, None)
    if batch is None:
        return set()
    batch.waiting.discard(i)
    if not batch.copied:
        batch.copied = True
        if batch.is_alone:  # it lies in the gathered buffer itself
            state.resident[i] = True
            return set()
        state.resident.update(dict.fromkeys((i, *batch.waiting), False))
        state.hold((i, *batch.waiting), 1, is_padded=False)
    peak = {state.form()}
    if not batch.waiting:  # the last one: nothing refers to the flat buffer any more
        state.hold(batch.members, -1, is_padded=True)
    return peak


def _release(state: _State, reuse: "_Reuses", next_step: int, visit: Visit) -> None:
    near = reuse.of(visit)
    for i in visit.parameters:
        skipped = state.fetched_for.get(i, -1) > next_step
        if state.trace.persistent[i] or skipped or near.is_near(i, next_step):
            continue
        is_padded = state.resident.pop(i, None)
        if is_padded is not None:
            state.left.setdefault(i, []).append(is_padded)
            state.available -= state.trace.numels[i]
        if i not in state.trace.kept or not reuse.fetched.is_used(i, next_step):
            state.forget(i)


class _Reuses:
    """What DeepSpeed walks to see whether parameters are used again soon.

    ``__params_to_release`` asks each module on the way for the parameters that it owns itself, and
    for all within it where the one that releases is a leaf.
    """

    def __init__(self, trace: Trace, distance: int) -> None:
        begun = [visit for visit in trace.visits if visit.begins]
        self.fetched = _Reuse([v.parameters for v in begun], trace.numels, distance)
        self._direct = self._inside = self.fetched
        if any(visit.direct is not None for visit in begun):
            direct = [v.parameters if v.direct is None else v.direct for v in begun]
            inside = [v.parameters if v.inside is None else v.inside for v in begun]
            self._direct = _Reuse(direct, trace.numels, distance)
            self._inside = _Reuse(inside, trace.numels, distance)

    def of(self, visit: Visit) -> "_Reuse":
        """The walk where ``visit`` releases."""
        return self._direct if visit.direct is None else self._inside


class _Reuse:
    """Whether a parameter is used again within ``distance`` elements of the trace."""

    def __init__(
        self, modules: list[tuple[int, ...]], numels: tuple[int, ...], distance: int
    ) -> None:
        self._distance = distance
        self._before = [0]  # elements of all modules before each step
        self._uses: dict[int, list[int]] = {}
        for step, module in enumerate(modules):
            self._before.append(self._before[-1] + sum(numels[i] for i in module))
            for i in module:
                self._uses.setdefault(i, []).append(step)

    def is_used(self, i: int, step: int) -> bool:
        """Whether parameter ``i`` is used at ``step`` or later."""
        return self._uses[i][-1] >= step

    def is_near(self, i: int, step: int) -> bool:
        """Whether the walk from ``step`` on meets parameter ``i`` before it gives up."""
        uses = self._uses.get(i, [])
        position = bisect_left(uses, step)
        if position == len(uses):
            return False
        return self._before[uses[position]] - self._before[step] < self._distance
