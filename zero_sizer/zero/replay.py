"""Which stage-3 parameters are gathered at which point of a step.

A step's modules are visited in the order in which they run (``zero_sizer.zero.gather`` has what
DeepSpeed does then). Equal blocks are passed over once they repeat themselves.
"""

from zero_sizer.zero import repeats
from zero_sizer.zero.forms import Form, Forms
from zero_sizer.zero.gather import State, fetch, release
from zero_sizer.zero.repeats import Run, Seen
from zero_sizer.zero.reuse import Reuses
from zero_sizer.zero.swapping import Buffers
from zero_sizer.zero.trace import Limits, Trace

Blocks = tuple[tuple[int, ...], ...]
"""Of every list of blocks, the number of the first visit of each and one past the last."""

_TRIES = 12  # blocks that may differ from the one before until it is no use to compare


def gathered(trace: Trace, limits: Limits, blocks: Blocks = ()) -> list[tuple[Forms, Forms]]:
    """Gathered parameters and their buffers at each visit: while it is made, and from then on.

    Persistent parameters are not counted unless the trace does: they have an entry of their own.
    """
    levels: list[tuple[Forms, Forms]] = []
    known: dict[Forms, Forms] = {}
    replay = Replay(trace, limits, blocks)
    while not replay.is_over:
        passed = replay.pass_over()
        if passed is not None:
            levels += passed.levels(levels)
            continue
        during, after = frozenset(replay.visit()), frozenset([replay.state.form()])
        levels.append((known.setdefault(during, during), known.setdefault(after, after)))
    return levels


def secondaries_made(
    trace: Trace, limits: Limits, forward: int, blocks: Blocks = ()
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Parameters whose secondary partitions the first ``forward`` visits make, and all visits."""
    in_forward = 0
    replay = Replay(trace, limits, blocks)
    while not replay.is_over:
        if replay.pass_over() is None:
            replay.visit()
        if replay.number == forward:
            in_forward = len(replay.state.made)
    made, known = tuple(replay.state.made), trace.secondary.made
    first, both = (tuple(i for i in some if i not in known) for some in (made[:in_forward], made))
    return first, both


class Passed:
    """Blocks that were passed over.

    Args:
        visits: of each.
        count: how many.
        more: elements and bytes of one -> secondary partitions that each block makes.
    """

    def __init__(self, visits: int, count: int, more: dict[tuple[int, int], int]) -> None:
        self._visits = visits
        self._count = count
        self._more = more

    def levels(self, before: list[tuple[Forms, Forms]]) -> list[tuple[Forms, Forms]]:
        """The levels of their visits, from those of all visits before."""
        block = before[-self._visits :]
        if not self._more:
            return block * self._count
        return [
            (self._after(during, number), self._after(after, number))
            for number in range(1, self._count + 1)
            for during, after in block
        ]

    def _after(self, found: Forms, blocks: int) -> Forms:
        return frozenset([self._form_after(form, blocks) for form in found])

    def _form_after(self, form: Form, blocks: int) -> Form:
        counts = {(size, each): count for size, each, count in form.secondary}
        for key, more in self._more.items():
            counts[key] = counts.get(key, 0) + blocks * more
        return form._replace(secondary=tuple(sorted([(*key, n) for key, n in counts.items()])))


class Replay:
    """A step, visit by visit.

    Args:
        trace: the modules.
        limits: of gathering.
        blocks: see ``Blocks``.

    Attributes:
        number: of the next visit.
        state: before it.
    """

    def __init__(self, trace: Trace, limits: Limits, blocks: Blocks) -> None:
        queue = [(i, step) for step, module in enumerate(trace.modules) for i in module]
        made = dict.fromkeys(trace.secondary.made)
        self.state = state = State(trace, limits, queue, made=made)
        state.buffers = Buffers(trace.swapped) if trace.swapped is not None else None
        if not trace.is_first:
            state.resident = {i: False for i, stays in enumerate(trace.persistent) if stays}
        for i in trace.secondary.counted:
            state.hold_secondary(i)
        self._reuse = Reuses(trace.visits, trace.numels, limits.max_reuse_distance)
        self.number = 0
        self._trace = trace
        self._step = 0
        self._over: int | None = None  # the visit that is released when the next one begins
        self._runs = repeats.runs_of(trace, blocks)
        self._run: Run | None = None
        self._queue_end = 0
        self._before: Seen | None = None

    @property
    def is_over(self) -> bool:
        """True if every visit was made."""
        return self.number == len(self._trace.visits)

    def visit(self) -> set[Form]:
        """Make the next visit; what is held meanwhile."""
        visit, state, during = self._trace.visits[self.number], self.state, set[Form]()
        if visit.begins:
            during |= self._release_over()
            during |= fetch(state, self._step, visit.parameters)
            self._step += 1
            self._over = self.number if visit.ends else None
        else:
            if self._over is not None and self._trace.visits[self._over].recomputes:
                during |= self._release_over()
            during |= release(state, self._reuse, self._step, visit)
        for i in visit.passed:
            state.forget(i)
        self.number += 1
        return during

    def _release_over(self) -> set[Form]:
        over, self._over = self._over, None
        if over is None:
            return set()
        return release(self.state, self._reuse, self._step, self._trace.visits[over])

    def pass_over(self) -> Passed | None:
        """Pass over blocks that are as the one before; None where none are known to be."""
        run = self._runs.get(self.number)
        if run is not None:
            first = self.state.queue_place(self._step)
            self._run, self._queue_end, self._before = run, first + run.blocks * run.queued, None
        run = self._run
        if run is None:
            return None
        block, visits = divmod(self.number - run.start, run.length)
        if visits or block < 2:
            return None
        if block > _TRIES or block == run.blocks:
            self._run = None
            return None
        before = self._before
        self._before = found = repeats.seen(self.state, run, block, self._step, self._over, before)
        asked, self.state.asked = self.state.asked, []
        if before is None or not found.repeats(before):
            return None
        head = self.state.head
        if self.state.buffers is not None:
            head = max(head, self.state.buffers.looked)
        by = repeats.skippable(run, block, head, self._queue_end, asked)
        if not by:
            return None
        self._run = None
        return self._moved(run, block, by, before)

    def _moved(self, run: Run, block: int, by: int, before: Seen) -> Passed:
        more = {
            key: count - before.secondary.get(key, 0)
            for key, count in self.state.secondary.items()
            if count != before.secondary.get(key, 0)
        }
        repeats.move(self.state, run, block, by, self._step, before)
        self.number += by * run.length
        self._step += by * run.begun
        if self._over is not None:
            self._over += by * run.length
        return Passed(run.length, by, more)
