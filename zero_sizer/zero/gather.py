"""How stage-3 parameters are fetched and released, and what is held meanwhile.

DeepSpeed decides it from the order in which modules run; this follows deepspeed 0.19.8
runtime/zero/partitioned_param_coordinator.py: fetch (``_fetch_sub_module_impl``), prefetch, and
release (``__params_to_release``), once the trace is complete, and the buffers of
runtime/zero/partition_parameters.py (``AllGatherCoalescedHandle``): several tensors gathered
together share one flat buffer of each dtype, which lives until all of the call have been waited
for, beside the tensors copied out of it. Under ``torch_autocast`` the weights of its list travel
in 16 bits: partitions are cast before, tensors after, out of what was copied or the buffer.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import field
from itertools import chain
from operator import itemgetter

from zero_sizer.util.records import dataclass
from zero_sizer.zero.forms import Form
from zero_sizer.zero.reuse import Reuse, Reuses, Visit
from zero_sizer.zero.swapping import Buffers
from zero_sizer.zero.trace import Limits, Trace


@dataclass
class Batch:
    """Parameters gathered in one call.

    Attributes:
        members: in the order in which they are copied out.
        waiting: those that nobody has waited for yet.
        in_place: the call gathered one parameter, which lies in the buffer itself.
        copied: whether they have been copied out.
    """

    members: tuple[int, ...]
    waiting: set[int]
    in_place: bool
    copied: bool = False

    def moved(self, by: int) -> "Batch":
        """A batch of other parameters, so many further."""
        members = tuple([i + by for i in self.members])
        return Batch(members, {i + by for i in self.waiting}, self.in_place, self.copied)


Asked = tuple[Reuse, int, int, bool]
"""Whether a parameter is used again soon: who was asked, the parameter, the step, the answer."""


@dataclass
class State:
    """Parameters that are gathered, and those under way.

    Attributes:
        queue: parameters and the steps they are used at; its front is at ``head``.
        available: elements that count towards ``max_live_parameters``.
        num_bytes: of gathered tensors and gather buffers now, without padding.
        padded: elements and bytes of one -> how many such tensors lie padded.
        resident: parameter -> whether it lies padded.
        left: released, but referred to.
        lent: to the module that is open.
        inflight: their gathers are under way.
        fetched_for: the last step that a parameter was taken from the queue for.
        made: they have a secondary partition.
        secondary: those made here, as ``padded``.
        asked: questions about next uses since somebody last looked.
        buffers: of NVMe.
    """

    trace: Trace
    limits: Limits
    queue: list[tuple[int, int]]
    head: int = 0
    available: int = 0
    num_bytes: int = 0
    padded: dict[tuple[int, int], int] = field(default_factory=dict)
    resident: dict[int, bool] = field(default_factory=dict)
    left: dict[int, list[bool]] = field(default_factory=dict)
    lent: dict[int, None] = field(default_factory=dict)
    inflight: dict[int, Batch] = field(default_factory=dict)
    fetched_for: dict[int, int] = field(default_factory=dict)
    made: dict[int, None] = field(default_factory=dict)
    secondary: dict[tuple[int, int], int] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    buffers: Buffers | None = None
    _form: Form | None = None

    def form(self) -> Form:
        """Form of all that is held now."""
        if self._form is None:
            padded = tuple(sorted([(*k, n) for k, n in self.padded.items() if n]))
            secondary = tuple(sorted([(*k, n) for k, n in self.secondary.items()]))
            self._form = Form(self.num_bytes, padded, secondary=secondary)
        return self._form

    def queue_place(self, step: int) -> int:
        """Place in the queue of the first parameter that is used at ``step`` or later."""
        return bisect_left(self.queue, step, key=itemgetter(1))

    def is_near(self, reuse: Reuse, parameter: int, step: int) -> bool:
        """See ``Reuse``; that it was asked is noted."""
        found = reuse.is_near(parameter, step)
        self.asked.append((reuse, parameter, step, found))
        return found

    def form_changed(self) -> None:
        """Note that the state was changed from outside."""
        self._form = None

    def forget(self, parameter: int, *, but: int = 0) -> None:
        """Nothing refers to what was released of it, ``but`` for the first so many."""
        released = self.left.pop(parameter, [])
        if released[:but]:
            self.left[parameter] = released[:but]
        for is_padded in released[but:]:
            self.hold((parameter,), -1, is_padded=is_padded)

    def cut(self, parameter: int) -> set[Form]:
        """A released parameter leaves its secondary partition; the level beside it."""
        if not self.trace.secondary.ranks or parameter in self.made:
            return set()
        self.made[parameter] = None
        return {self.form()} if self.hold_secondary(parameter) else set()

    def hold_secondary(self, parameter: int) -> bool:
        """A secondary partition comes; whether it takes anything on the GPU."""
        key = self.trace.numels[parameter], self.trace.secondary.itemsizes[parameter]
        if key[1]:
            self._form = None
            self.secondary[key] = self.secondary.get(key, 0) + 1
        return bool(key[1])

    def hold(self, parameters: Sequence[int], sign: int, *, is_padded: bool) -> None:
        """Tensors come (``sign`` 1) or go (-1); padded they lie in what was gathered."""
        self._form = None
        itemsizes = self.trace.gather_itemsizes if is_padded else self.trace.itemsizes
        for i in parameters:
            key = size, itemsize = self.trace.numels[i], itemsizes[i]
            self.num_bytes += sign * size * itemsize
            if is_padded:
                self.padded[key] = self.padded.get(key, 0) + sign


def fetch(state: State, step: int, module: tuple[int, ...]) -> set[Form]:
    """Fetch a module's parameters, and more ahead; the levels meanwhile."""
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
        if state.buffers is not None:
            in_flight = sum([state.trace.numels[i] for i in state.inflight])
            state.buffers.read_ahead(state.queue, state.head, state.trace.numels, in_flight)
    return peaks


def _prefetch(state: State) -> set[Form]:
    limit = min(
        state.limits.max_live_parameters - state.available, state.limits.prefetch_bucket_size
    )
    chosen: dict[int, None] = {}
    numel = 0
    while state.head < len(state.queue) and numel < limit:
        i, used_at = state.queue[state.head]
        if state.buffers is not None and state.buffers.is_away(i):
            break
        state.head += 1
        state.fetched_for[i] = max(state.fetched_for.get(i, -1), used_at)
        if _absent(state, i) and i not in chosen:
            chosen[i] = None
            numel += state.trace.numels[i]
    return _gather(state, list(chosen))


def _absent(state: State, i: int) -> bool:
    return i not in state.resident and i not in state.inflight


def _gather(state: State, parameters: list[int]) -> set[Form]:
    """Start a gather; the levels while it is made."""
    if not parameters:
        return {state.form()}
    trace = state.trace
    if trace.secondary.ranks:  # gathered apart, those with a secondary partition first
        apart = [i for i in parameters if i in state.made]
        if apart and len(apart) < len(parameters):
            others = [i for i in parameters if i not in state.made]
            return _gather(state, apart) | _gather(state, others)
    state.available += sum(trace.numels[i] for i in parameters)
    if state.buffers is not None:
        state.buffers.read(parameters)
    if trace.one_by_one:
        state.inflight.update({i: Batch((i,), {i}, in_place=True) for i in parameters})
        state.hold(parameters, 1, is_padded=True)
        return {state.form()}
    buffers = trace.buffers(parameters)
    in_place = len(parameters) == 1 and not trace.is_cast(parameters[0])
    batch = Batch(tuple(chain(*buffers)), set(parameters), in_place)
    state.inflight.update(dict.fromkeys(parameters, batch))
    found: set[Form] = set()
    for buffer in buffers:
        state.hold(buffer, 1, is_padded=True)
        found |= _brought(state, buffer)
    return found


def _brought(state: State, buffer: list[int]) -> set[Form]:
    """The levels while partitions are put into a buffer (partition_parameters.py:1358-1362).

    Parked ones are brought to the GPU first, all of them. Where they are cast, the casts wait for
    each other, each beside what was brought for it; before a larger one it is never the highest.
    """
    trace, form = state.trace, state.form()
    if not (trace.is_parked or trace.casts):
        return {form}
    is_secondary = bool(trace.secondary.ranks) and buffer[0] in state.made
    lying: list[tuple[int, int, bool]] = []
    passing: list[tuple[int, list[tuple[int, int, bool]]]] = []
    for i in buffer:
        size = trace.numels[i]
        if trace.is_parked or trace.is_cast(i):
            lying.append((size, trace.gather_itemsizes[i], is_secondary))
        if trace.is_parked and trace.is_cast(i):
            while passing and passing[-1][0] <= size:
                passing.pop()
            passing.append((size, [*lying, (size, trace.itemsizes[i], is_secondary)]))
    levels = (lying, *[brought for _, brought in passing])
    return {form._replace(brought=tuple(sorted(brought))) for brought in levels}


def _wait(state: State, i: int) -> set[Form]:
    """Finish the gather of ``i``; the level while its call's copies are made, if they are."""
    batch = state.inflight.pop(i, None)
    if batch is None:
        return set()
    batch.waiting.discard(i)
    beside = 0
    if not batch.copied:
        batch.copied = True
        if batch.in_place:
            state.resident[i] = True
            if state.trace.elsewhere[i]:  # from now on
                state.hold((i,), -1, is_padded=True)
            return set()
        state.resident.update(dict.fromkeys(batch.members, False))
        passing = [i for i in batch.members if not state.trace.elsewhere[i]]
        state.hold(passing, 1, is_padded=False)
        beside = _copied_beside(state.trace, batch.members)
    peak = state.form()
    if not batch.waiting:  # the last one: nothing refers to the buffers any more
        state.hold(batch.members, -1, is_padded=True)
    return {peak._replace(num_bytes=peak.num_bytes + beside)}


def _copied_beside(trace: Trace, members: tuple[int, ...]) -> int:
    """Most bytes that copying and casting takes beyond the casts (partition_parameters.py:795).

    What is copied out of a buffer goes when it is cast; those after it are still to come then.
    """
    most = coming = 0
    if len(members) == 1 or not trace.casts:  # one is cast out of the buffer itself
        return 0
    for i in reversed(members):
        if trace.is_cast(i):
            most = max(most, trace.numels[i] * trace.gather_itemsizes[i] - coming)
        coming += 0 if trace.elsewhere[i] else trace.numels[i] * trace.itemsizes[i]
    return most


def release(state: State, reuse: Reuses, next_step: int, visit: Visit) -> set[Form]:
    """Let go of what a visit gathered; the levels where a secondary partition lies beside it."""
    near, trace = reuse.of(visit), state.trace
    peaks: set[Form] = set()
    for i in visit.parameters:
        is_kept = i in trace.kept or i in visit.saves
        is_kept |= visit.recomputes and i in trace.recomputed
        if not is_kept:  # its backward is over, if it has begun
            state.forget(i)
        skipped = state.fetched_for.get(i, -1) > next_step
        if visit.recomputes and i in trace.lent and not trace.persistent[i]:
            state.lent[i] = None
            continue
        is_lent = visit.within and i in state.lent
        if trace.persistent[i] or skipped or is_lent or state.is_near(near, i, next_step):
            continue
        peaks |= _let_go(state, i)
        if not (is_kept and reuse.fetched.is_used(i, next_step)):
            state.forget(i)
    while state.lent and not (visit.recomputes or visit.within):
        i, _ = state.lent.popitem()
        peaks |= _let_go(state, i)
        if i not in trace.recomputed:  # what ran again refers to it until its backward is over
            state.forget(i, but=1 if i in trace.kept else 0)  # forward's own
    return peaks


def _let_go(state: State, i: int) -> set[Form]:
    """Release a parameter, if it is there."""
    is_padded = state.resident.pop(i, None)
    if is_padded is None:
        return set()
    peaks = state.cut(i)
    if state.buffers is not None:
        state.buffers.give_back(i)
    state.left.setdefault(i, []).append(is_padded)
    state.available -= state.trace.numels[i]
    return peaks
