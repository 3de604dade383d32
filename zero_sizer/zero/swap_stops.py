"""Where DeepSpeed stops since weights on NVMe find no buffer, in the first step or a later one.

The micro steps of a run differ in what DeepSpeed knows and in what has a buffer when they begin
(``zero_sizer.zero.trace.Known``), so each kind is replayed once, in the order in which they come.
"""

from dataclasses import replace
from enum import Enum
from functools import lru_cache
from typing import NamedTuple

from zero_sizer.util.identity import Identity
from zero_sizer.zero.replay import Blocks, Replay
from zero_sizer.zero.reuse import Visit
from zero_sizer.zero.swapping import Stop, Swapped
from zero_sizer.zero.trace import Gathering


class When(Enum):
    """Part of a run.

    Attributes:
        FIRST: the first micro step of all.
        UNSTEPPED: a later one, before an optimizer step is over.
        STEP: the first optimizer step gathers what stays gathered, all at once.
        LATER: a micro step after that.
    """

    FIRST = "the first micro step"
    UNSTEPPED = "the second micro step"
    STEP = "the first optimizer step"
    LATER = "the second step"


class StopAt(NamedTuple):
    """An assertion, and where it fails.

    Attributes:
        stop: which.
        when: part of the run.
        is_forward: True in forward.
    """

    stop: Stop
    when: When
    is_forward: bool = False


class Run(NamedTuple):
    """A run, as far as it decides which weights have buffers.

    Attributes:
        program: visits of a step, how many of them are of forward, and blocks (``Blocks``).
        first: how the first micro step gathers: without knowing the modules, and nothing stays.
        unstepped: how others before an optimizer step do.
        later: how those after that do.
        micro_steps: of a step.
    """

    program: Identity
    first: Gathering
    unstepped: Gathering
    later: Gathering
    micro_steps: int

    def with_swapped(self, buffers: int) -> "Run":
        """The run with another number of buffers."""
        return self._replace(
            first=_with_buffers(self.first, buffers),
            unstepped=_with_buffers(self.unstepped, buffers),
            later=_with_buffers(self.later, buffers),
        )

    def with_limits(self, **changed: int) -> "Run":
        """The run with other limits of gathering, where the modules are known."""
        return self._replace(
            unstepped=_with_limits(self.unstepped, changed),
            later=_with_limits(self.later, changed),
        )


class Visits(NamedTuple):
    """Modules of a step in the order in which they run."""

    visits: tuple[Visit, ...]
    forward: int
    blocks: Blocks


def first_stop(run: Run) -> StopAt | None:
    """The first assertion that fails in a run; None: it goes on for ever."""
    found, _ = _followed(run)
    return found


def fewest_at_once(run: Run) -> int:
    """Buffers that are lent at once where there is no end of them."""
    _, most = _followed(run.with_swapped(len(run.later.persistent)))
    return most


def fewest_buffers(run: Run, tries: int, least: int = 1) -> int | None:
    """The fewest buffers with which the run does not stop; None: none of those that were tried.

    More of them may stop a run that fewer do not, since more is read ahead then.

    Args:
        run: any.
        tries: how many numbers to try, from the one that gathering alone takes.
        least: buffers that something else needs.
    """
    least = max(least, fewest_at_once(run.with_limits(prefetch_bucket_size=0)))
    if not run.later.limits.prefetch_bucket_size:
        return least
    for buffers in range(least, least + tries):
        if first_stop(run.with_swapped(buffers)) is None:
            return buffers
    return None


class _After(NamedTuple):
    """End of a micro step, or of what there was of it.

    Attributes:
        stop: the assertion that failed.
        is_forward: True where that was in forward.
        stays: gathered parameters that are there when the next one begins.
        lent: which of them have buffers.
        most: the most buffers that were lent at once.
    """

    stop: Stop | None = None
    is_forward: bool = False
    stays: frozenset[int] = frozenset()
    lent: frozenset[int] = frozenset()
    most: int = 0

    def at(self, when: When) -> StopAt | None:
        return None if self.stop is None else StopAt(self.stop, when, self.is_forward)


def _followed(run: Run) -> tuple[StopAt | None, int]:
    """The first stop, and the most buffers that were lent at once until then."""
    last = _micro_step(run.program, run.first, run.unstepped.persistent, _After())
    found, most = last.at(When.FIRST), last.most
    for _ in range(run.micro_steps - 1):
        if found is not None:
            break
        before = last
        last = _micro_step(run.program, run.unstepped, run.unstepped.persistent, before)
        found, most = last.at(When.UNSTEPPED), max(most, last.most)
        if last[2:4] == before[2:4]:
            break
    if found is not None:
        return found, most
    swapped = _swapped(run.later)
    most = max(most, len(swapped.lent))
    if len(swapped.lent) > swapped.buffers:
        return StopAt(Stop(tuple(sorted(swapped.lent)), swapped.buffers), When.STEP), most
    last = _micro_step(run.program, run.later, run.later.persistent, None)
    return last.at(When.LATER), max(most, last.most)


@lru_cache(maxsize=256)
def _micro_step(
    program: Identity, how: Gathering, persistent: tuple[bool, ...], before: _After | None
) -> _After:
    """Follows a micro step; ``before`` is None where what stays is there, with its buffers."""
    visits, forward, blocks = program.of
    if before is not None:
        how = how._replace(swapped=_swapped(how)._replace(lent=before.lent))
    replay = Replay(how.trace(visits, forward), how.limits, blocks)
    buffers, state = replay.state.buffers, replay.state
    if buffers is None:
        return _After()
    if before is not None:
        state.resident = dict.fromkeys(before.stays, False)
    while not replay.is_over:
        if replay.pass_over() is None:
            replay.visit()
        if buffers.stop is not None:
            return _After(buffers.stop, replay.number <= forward, most=buffers.most)
    # what no hook has released goes when backward is over (release_backward_leftovers)
    stays = frozenset(i for i in state.resident if persistent[i])
    return _After(stays=stays, lent=stays.intersection(buffers.lent), most=buffers.most)


def _with_buffers(how: Gathering, buffers: int) -> Gathering:
    return how._replace(swapped=_swapped(how)._replace(buffers=buffers))


def _with_limits(how: Gathering, changed: dict[str, int]) -> Gathering:
    return how._replace(limits=replace(how.limits, **changed))


def _swapped(how: Gathering) -> Swapped:
    if how.swapped is None:
        raise ValueError("nothing is swapped")
    return how.swapped
