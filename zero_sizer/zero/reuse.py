"""Modules as they run, and whether DeepSpeed sees that one's parameters are used again soon."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from zero_sizer.util.identity import Identity


class Visit(NamedTuple):
    """A module begins to run, has run, or both: then it is over where the next one begins.

    Attributes:
        parameters: indices of those it owns.
        begins: they are fetched.
        ends: they are released.
        direct: those that it owns itself, where it is a leaf; None: it is none.
        inside: all within it; None: ``parameters``.
        passed: those that backward is done with; what is kept of them goes.
        recomputes: it runs again for what its forward saves.
        saves: those that backward refers to by another tensor, from here until its next visit.
        within: it is inside the module that asked for recomputation, to which that lent parameters.
    """

    parameters: tuple[int, ...]
    begins: bool = True
    ends: bool = False
    direct: tuple[int, ...] | None = None
    inside: tuple[int, ...] | None = None
    passed: tuple[int, ...] = ()
    recomputes: bool = False
    saves: tuple[int, ...] = ()
    within: bool = False


def saving(
    forward: Sequence[Visit], backward: Iterable[Visit], views: frozenset[int]
) -> Iterator[Visit]:
    """Forward visits with what they save; what runs again saves then."""
    again = {i for visit in backward if visit.recomputes for i in visit.parameters}
    last = {i: number for number, v in enumerate(forward) if v.ends for i in v.parameters}
    for number, visit in enumerate(forward):
        saves = [i for i in visit.parameters if i in views and last.get(i) == number]
        yield visit._replace(saves=tuple([i for i in saves if i not in again]))


class Reuses:
    """Trace that DeepSpeed walks to see whether parameters are used again soon.

    ``__params_to_release`` asks each module on the way for the parameters that it owns itself, and
    for all within it where the one that releases is a leaf.
    """

    def __init__(self, visits: tuple[Visit, ...], numels: tuple[int, ...], distance: int) -> None:
        fetched, direct, inside = _uses_of(Identity(visits), numels)
        self.fetched = Reuse(fetched, distance)
        self._direct = self.fetched if direct is fetched else Reuse(direct, distance)
        self._inside = self.fetched if inside is fetched else Reuse(inside, distance)

    def of(self, visit: Visit) -> "Reuse":
        """The walk where ``visit`` releases."""
        return self._direct if visit.direct is None else self._inside


class Uses:
    """Steps at which parameters are used.

    Attributes:
        before: elements of all modules before each step.
        of: parameter -> its steps.
    """

    def __init__(self, modules: list[tuple[int, ...]], numels: tuple[int, ...]) -> None:
        self.before = [0]
        self.of: dict[int, list[int]] = {}
        for step, module in enumerate(modules):
            self.before.append(self.before[-1] + sum([numels[i] for i in module]))
            for i in module:
                self.of.setdefault(i, []).append(step)


@lru_cache(maxsize=32)
def _uses_of(identity: Identity, numels: tuple[int, ...]) -> tuple[Uses, Uses, Uses]:
    """Of what is fetched, of what modules own themselves, and of all within leaves."""
    begun = [visit for visit in identity.of if visit.begins]
    fetched = Uses([v.parameters for v in begun], numels)
    if all(visit.direct is None for visit in begun):
        return fetched, fetched, fetched
    direct = [v.parameters if v.direct is None else v.direct for v in begun]
    inside = [v.parameters if v.inside is None else v.inside for v in begun]
    return fetched, Uses(direct, numels), Uses(inside, numels)


class Reuse:
    """Answers whether a parameter is used again within ``distance`` elements of the trace."""

    def __init__(self, uses: Uses, distance: int) -> None:
        self._distance = distance
        self._before = uses.before
        self._uses = uses.of

    def is_used(self, i: int, step: int) -> bool:
        """True if parameter ``i`` is used at ``step`` or later."""
        return self._uses[i][-1] >= step

    def is_near(self, i: int, step: int) -> bool:
        """True if the walk from ``step`` on meets parameter ``i`` before it gives up."""
        uses = self._uses.get(i, [])
        position = bisect_left(uses, step)
        if position == len(uses):
            return False
        return self._before[uses[position]] - self._before[step] < self._distance
