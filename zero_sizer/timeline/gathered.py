"""Gathered parameters at the places of a step."""

from collections.abc import Iterable, Sequence
from itertools import chain

from zero_sizer.timeline.passes import Side
from zero_sizer.timeline.program import Place, Placed, Program, Run, getter
from zero_sizer.util.caches import cached_large
from zero_sizer.util.identity import Identity
from zero_sizer.zero import forms
from zero_sizer.zero.forms import Compiled, Form, Forms


class _Unions:
    """Unions of sets of forms; of equal blocks they are made once."""

    def __init__(self) -> None:
        self._pairs: dict[tuple[int, int], tuple[Forms, Forms, Forms]] = {}

    def of_two(self, one: Forms, other: Forms) -> Forms:
        """All forms of both."""
        if one is other or not other:
            return one
        key = id(one), id(other)
        found = self._pairs.get(key)
        if found is None:  # the sets are kept, so that they stay themselves
            found = self._pairs[key] = one | other, one, other
        return found[0]

    def of(self, visits: Iterable[tuple[Forms, Forms]]) -> Forms:
        """All forms of some visits."""
        found = forms.NEVER
        for during, after in visits:
            both = self.of_two(during, after)
            found = self.of_two(found, both) if found else both
        return found


class _Followed:
    """Forms at every place of a program.

    Attributes:
        levels: while its step runs.
        ends: at its end, what the next place's modules fetch included.
        own: at its end.
    """

    def __init__(self, program: Program, visits: Sequence[tuple[Forms, Forms]]) -> None:
        self.levels: list[Forms] = []
        self.ends: list[Forms] = []
        self.own: list[Forms] = []
        self._visits = visits
        self._together = _Unions()
        self._level, self._done = forms.NOTHING, 0
        places, backward = (*program.forward, *program.backward), len(program.forward)
        runs = iter((*program.runs, Run(len(places), 1, 0, 0)))
        run = next(runs)
        number, entered = 0, forms.NOTHING
        while number < len(places):
            if number == run.end:
                run = next(runs)
                continue
            is_first = number >= run.start and (number - run.start) % run.width == 0
            if is_first and number >= run.start + 2 * run.width and self._level is entered:
                number += run.width * self._passed_over(run, (run.end - number) // run.width)
                if number == run.end:
                    continue
            if is_first:
                entered = self._level
            self._step(places[number], is_first=number in (0, backward))
            number += 1

    def _passed_over(self, run: "Run", most: int) -> int:
        """Take blocks that are visited as the one before for its copies; how many there are."""
        visits, length, done = self._visits, run.visits, self._done
        block, count = visits[done - length : done], 0
        while count < most and visits[done : done + length] == block:
            done, count = done + length, count + 1
        if count:
            width = run.width
            last, fetched = self.ends[-1], self.ends[-width - 1]
            self.levels += self.levels[-width:] * count
            self.own += self.own[-width:] * count
            self.ends[-1] = fetched
            self.ends += self.ends[-width:] * count
            self.ends[-1] = last
            self._done = done
        return count

    def _step(self, place: Place, *, is_first: bool) -> None:
        fetching, together = forms.NEVER, self._together
        if place.visits:
            begun = self._done + len(place.visits)
            fetching = together.of(self._visits[self._done : begun])
            self._done, self._level = begun, self._visits[begun - 1][1]
            if not is_first:
                self.ends[-1] = together.of_two(self.ends[-1], fetching)
                fetching = forms.NEVER
        self.levels.append(together.of_two(self._level, fetching))
        if place.ends:
            self._done += len(place.ends)
            self._level = self._visits[self._done - 1][1]
        self.ends.append(self._level)
        self.own.append(self._level)


class Levels:
    """Gathered parameters at every place, for any number of ranks.

    What is held only while a place's modules are fetched meets the activations that the place
    before it ends with, where both are of the same pass.

    Args:
        program: the places.
        visits: ``replay.gathered``.
        group: ranks over which secondary partitions are cut; 0 without.
    """

    def __init__(self, program: Program, visits: Sequence[tuple[Forms, Forms]], group: int) -> None:
        self._group = group
        backward = len(program.forward)
        found = _Followed(program, visits)
        all_of = found.levels, found.ends, found.own
        met = list(dict.fromkeys(chain(*all_of)))
        numbers = {f: number for number, f in enumerate(met)}
        rows = [list(map(numbers.__getitem__, row)) for row in all_of]
        self._levels = [tuple(found) for found in met]
        places_of = {form: place for place, form in enumerate(dict.fromkeys(chain(*met)))}
        self._of_levels = [getter([places_of[form] for form in found]) for found in met]
        self._forms = Compiled(tuple(places_of))  # levels share most of them
        self.per_rank = max([form.per_rank for form in places_of], default=0)
        self.forward = _placed((row[:backward] for row in rows), program.forward_spans)
        self.backward = _placed((row[backward:] for row in rows), program.backward_spans)

    def bytes_at(self, ranks: int) -> tuple[Side, Side]:
        """Bytes in forward and in backward."""
        values = _Asked(self._levels, forms.Padding(ranks, self._group))
        return Side(values, *self.forward), Side(values, *self.backward)

    def ceilings(self, ranks: int) -> list[int]:
        """Bytes that no level exceeds on ``ranks``, and on less than ``SPAN`` times as many."""
        sizes = self._forms.at(forms.Ceiling(ranks, self._group))
        return [max(level(sizes)) for level in self._of_levels]

    def most(self, values: Sequence[int]) -> tuple[int, int]:
        """The highest of the levels' values in forward and in backward."""
        in_forward, in_backward = (
            max(within.most(values), end.most(values))
            for within, end, _ in (self.forward, self.backward)
        )
        return in_forward, in_backward


class _Asked(dict[int, int]):
    """Bytes of each level, padding included, worked out when asked for: few are."""

    def __init__(self, levels: Sequence[Sequence[Form]], padding: forms.Padding) -> None:
        super().__init__()
        self._levels = levels
        self._padding = padding

    def __missing__(self, number: int) -> int:
        padding = self._padding
        found = self[number] = max([form.at(padding) for form in self._levels[number]])
        return found


def _placed(rows: Iterable[list[int]], spans: Sequence[slice]) -> tuple[Placed, Placed, Placed]:
    within, end, apart = (Placed(row, spans) for row in rows)
    return within, end, apart


@cached_large(maxsize=256)
def gathered_at(levels: Identity, ranks: int) -> tuple[Side, Side]:
    """Bytes in forward and in backward, kept."""
    return levels.of.bytes_at(ranks)  # type: ignore[no-any-return]
