"""Gathered parameters at the places of a step."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import chain

from zero_sizer.timeline.passes import Side
from zero_sizer.timeline.program import Placed, Program
from zero_sizer.util.identity import Identity
from zero_sizer.zero import forms
from zero_sizer.zero.forms import Compiled, Form, Forms


class _Unions:
    """Unions of sets of forms; of equal blocks they are made once."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, ...], tuple[Forms, tuple[Forms, ...]]] = {}

    def of(self, *sets: Forms) -> Forms:
        """All forms of these."""
        key = tuple(map(id, sets))
        found = self._known.get(key)
        if found is None:  # the sets are kept, so that they stay themselves
            found = self._known[key] = frozenset().union(*sets), sets
        return found[0]


class Levels:
    """Gathered parameters at every place, for any number of ranks.

    What is held only while a place's modules are fetched meets the activations that the place
    before it ends with, where both are of the same pass.
    """

    def __init__(self, program: Program, visits: Sequence[tuple[Forms, Forms]]) -> None:
        places, backward = (*program.forward, *program.backward), len(program.forward)
        together, numbers = _Unions(), dict[Forms, int]()
        level, done = forms.NOTHING, 0
        levels: list[Forms] = []
        ends: list[Forms] = []
        own: list[Forms] = []
        for number, place in enumerate(places):
            fetching = forms.NEVER
            if place.visits:
                begun = done + len(place.visits)
                fetching = together.of(*chain.from_iterable(visits[done:begun]))
                done, level = begun, visits[begun - 1][1]
                if number not in (0, backward):
                    ends[-1] = together.of(ends[-1], fetching)
                    fetching = forms.NEVER
            levels.append(together.of(level, fetching) if fetching else level)
            if place.ends:
                done += len(place.ends)
                level = visits[done - 1][1]
            ends.append(level)
            own.append(level)
        rows = [[numbers.setdefault(f, len(numbers)) for f in row] for row in (levels, ends, own)]
        places_of: dict[Form, int] = {}  # levels share most of their forms
        self._levels = [
            tuple([places_of.setdefault(form, len(places_of)) for form in found])
            for found in numbers
        ]
        self._forms = Compiled(tuple(places_of))
        self.per_rank = max([form.per_rank for form in places_of], default=0)
        self.forward = _placed((row[:backward] for row in rows), program.forward_spans)
        self.backward = _placed((row[backward:] for row in rows), program.backward_spans)

    def bytes_at(self, ranks: int, group: int) -> tuple[Side, Side]:
        """Bytes in forward and in backward."""
        sizes = self._forms.at(forms.Padding(ranks, group))
        values = [
            sizes[level[0]] if len(level) == 1 else max([sizes[place] for place in level])
            for level in self._levels
        ]
        return _side(values, self.forward), _side(values, self.backward)


def _placed(rows: Iterable[list[int]], spans: Sequence[slice]) -> tuple[Placed, Placed, Placed]:
    within, end, apart = (Placed(row, spans) for row in rows)
    return within, end, apart


def _side(values: Sequence[int], placed: tuple[Placed, Placed, Placed]) -> Side:
    within, end, apart = placed
    return Side(values, within, end, apart, max(within.most(values), end.most(values)))


@lru_cache(maxsize=256)
def gathered_at(levels: Identity, ranks: int, group: int) -> tuple[Side, Side]:
    """Bytes in forward and in backward, kept."""
    return levels.of.bytes_at(ranks, group)  # type: ignore[no-any-return]
