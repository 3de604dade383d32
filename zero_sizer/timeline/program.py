"""The places of a step, flat, in the order in which they run."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import NamedTuple

from zero_sizer.util.identity import Identity
from zero_sizer.util.periods import periods
from zero_sizer.util.records import dataclass
from zero_sizer.zero.gradient_flow import Completion
from zero_sizer.zero.highest import Highest
from zero_sizer.zero.reduction import Held
from zero_sizer.zero.reuse import Visit


class Place(NamedTuple):
    """One step of one block: where the parts' steps meet parameters (indices into the model's)."""

    label: str
    visits: tuple[Visit, ...]  # of modules, where the step begins
    completes: int  # the gradient that is complete where it ends; -1: none
    reduces: tuple[int, ...]  # the gradients whose hooks run then
    makes: tuple[int, ...]  # the gradients that are held from there on
    ends: tuple[Visit, ...] = ()  # where the step ends, before those hooks

    @property
    def all_visits(self) -> tuple[Visit, ...]:
        """In the order in which they are made."""
        return (*self.visits, *self.ends)


Positions = tuple[tuple[Place, ...], ...]
"""A part's places: per step position, per block in the order in which they run."""


@dataclass(frozen=True)
class Layout:
    """The places of a step, as the profile cuts it.

    Attributes:
        forward: per part.
        backward: per part, still in forward order.
    """

    forward: tuple[Positions, ...]
    backward: tuple[Positions, ...]


class Run(NamedTuple):
    """Equal blocks in a row.

    Attributes:
        start: number of the first place.
        width: places of a block.
        blocks: how many.
        visits: of each, those of its places' ends included.
    """

    start: int
    width: int
    blocks: int
    visits: int

    @property
    def end(self) -> int:
        """One past the last place."""
        return self.start + self.width * self.blocks


Values = Sequence[int] | Mapping[int, int]
"""Bytes by number; where few are asked for, each is worked out when it is."""


class Placed:
    """Which of some values there is at each place of a pass.

    Few columns can hold the highest place, so each is looked up when it is asked for.

    Args:
        numbers: of each place the number of its value.
        spans: where the columns lie among the places.
    """

    def __init__(self, numbers: Sequence[int], spans: Sequence[slice]) -> None:
        self.numbers = numbers
        self._spans = spans
        self._columns: dict[int, _Getter] = {}
        self._all = getter(sorted(set(numbers)))

    def most(self, values: Values) -> int:
        """The highest value of all places."""
        return max(self._all(values), default=0)

    def column(self, number: int, values: Values) -> Sequence[int]:
        """The values of one column."""
        found = self._columns.get(number)
        if found is None:
            found = self._columns[number] = getter(self.numbers[self._spans[number]])
        return found(values)


class Program:
    """A layout, flat, in the order in which it runs.

    Attributes:
        forward: its places.
        forward_spans: where the columns of forward lie among them.
        backward: see ``forward``.
        backward_spans: see ``forward_spans``.
        order: gradients as they become complete.
        visits: of modules, and how many of them are of forward.
        blocks: see ``zero.replay.Blocks``.
        runs: blocks whose places make equally many visits, of forward and backward.
        held: which of ``held_bytes`` there are at places of backward, within, in the hook at the
            end, and after that.
    """

    def __init__(self, layout: Layout) -> None:
        self.forward, self.forward_spans = _flat(layout.forward)
        self.backward, self.backward_spans = _flat(layout.backward[::-1])
        complete = (place for place in self.backward if place.completes >= 0)
        order = [Completion(p.completes, p.makes, p.reduces) for p in complete]
        self.order = _interned(tuple(order))
        visits = tuple(v for p in (*self.forward, *self.backward) for v in p.all_visits)
        self.visits = visits, sum(len(p.all_visits) for p in self.forward)
        self.blocks = tuple(self._blocks(layout))
        self.runs = tuple(self._runs(layout))
        self._last = {step.parameter: position for position, step in enumerate(self.order)}
        self._numbers = list(self._sources())
        columns = zip(*self._numbers, strict=True) if self._numbers else ((), (), ())
        within, hook, after = (Placed(column, self.backward_spans) for column in columns)
        self.held = within, hook, after

    def _blocks(self, layout: Layout) -> Iterator[tuple[int, ...]]:
        """Of blocks in a row that may be equal the first visit of each, and one past the last.

        Those of a part, and those of several parts that come again and again: checkpointing of
        every other block cuts a model into many parts, windows of attention do.
        """
        number = 0
        for parts in (layout.forward, layout.backward[::-1]):
            starts, marks = [number], list[_Mark]()
            for positions in parts:
                first = len(marks)
                for block in zip(*positions, strict=True):
                    mark = tuple([_mark(v) for place in block for v in place.all_visits])
                    number += len(mark)
                    starts.append(number)
                    marks.append(mark)
                if len(marks) > first + 2:
                    yield tuple(starts[first:])
            for first, period, count in periods(marks):
                yield tuple(starts[first : first + period * count + 1 : period])

    def _runs(self, layout: Layout) -> Iterator[Run]:
        start = 0
        for positions in (*layout.forward, *layout.backward[::-1]):
            blocks = list(zip(*positions, strict=True))
            visits = {tuple([len(place.all_visits) for place in block]) for block in blocks}
            if len(blocks) > 3 and len(visits) == 1:
                yield Run(start, len(positions), len(blocks), sum(visits.pop()))
            start += len(positions) * len(blocks)

    def _sources(self) -> Iterator[tuple[int, int, int]]:
        """Per place of backward: which of ``[start, *before, *hook, *after]`` it holds.

        Within, in the hook at its end, and after that.
        """
        count, after = len(self.order), 0
        for place in self.backward:
            position = self._last.get(place.completes, -1)
            if position < 0:
                yield after, after, after
            else:
                after = 1 + 2 * count + position
                yield 1 + position, 1 + count + position, after

    def held_bytes(
        self, start: int, before: Iterable[int], hook: Iterable[int], after: Iterable[int]
    ) -> list[int]:
        """Bytes of which ``held`` says which there are at every place of backward."""
        return [start, *before, *hook, *after]

    def held_at(self, reduction: Highest, index: int) -> list[Held]:
        """Bytes held at one place, by kind."""
        kinds = (reduction.before, reduction.hook, reduction.after)
        count = len(self.order)
        return [
            kinds[(source - 1) // count]((source - 1) % count) if source else reduction.start
            for source in self._numbers[index]
        ]


_Mark = tuple[tuple[int, int, bool, bool, bool], ...]


def _mark(visit: Visit) -> tuple[int, int, bool, bool, bool]:
    """What is soon compared of a visit; who passes over blocks compares all of it."""
    counts = len(visit.parameters), len(visit.passed)
    return (*counts, visit.begins, visit.ends, visit.recomputes)


@lru_cache(maxsize=64)
def _interned(order: tuple[Completion, ...]) -> tuple[Completion, ...]:
    """The first met of all that are equal: with checkpointing and without, most are."""
    return order


def program_of(layout: Layout) -> Program:
    """The layout, flat."""
    return _program(Identity(layout))


@lru_cache(maxsize=64)
def _program(layout: Identity) -> Program:
    return Program(layout.of)


def _flat(parts: Sequence[Positions]) -> tuple[tuple[Place, ...], tuple[slice, ...]]:
    """Places in the order they run, and where each step position of each part lies among them."""
    places: list[Place] = []
    spans: list[slice] = []
    for positions in parts:
        start, width = len(places), len(positions)
        places += [place for column in zip(*positions, strict=True) for place in column]
        spans += [slice(start + j, len(places), width) for j in range(width)]
    return tuple(places), tuple(spans)


_Getter = Callable[[Values], Sequence[int]]


def getter(numbers: Sequence[int]) -> _Getter:
    """``[values[number] for number in numbers]``, fast."""
    if len(numbers) < 2:
        return lambda values: [values[number] for number in numbers]
    found: _Getter = itemgetter(*numbers)
    return found
