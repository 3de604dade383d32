"""Of several ranks the one that holds most while gradients flow, place by place.

What ranks have in common is known beforehand, and so is what none of them exceeds. Few places can
be the highest, so what a rank has of its own is added up where it is asked for.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from functools import cached_property

from zero_sizer.zero.gradient_flow import Flow
from zero_sizer.zero.reduction import Held, Holder, Reduction, total_of
from zero_sizer.zero.share import Own


class Highest:
    """Of some ranks the one that holds most, at every place.

    Args:
        flow: what all ranks do.
        first: one rank's side of it.
        others: what further ranks have of their own.

    Attributes:
        most_own: bytes that none exceeds of its own at any time.
    """

    def __init__(self, flow: Flow, first: Reduction, others: Sequence[Own]) -> None:
        self._flow = flow
        self._first = first
        self._others = others
        self._holders = [first.holder, *map(first.holder_of, others)]
        self.most_own = max([holder.most for holder in self._holders])
        self._afterwards = max([first.own.afterwards, *[own.afterwards for own in others]])
        self._own_at = _Tops(self._holders)

    def before_total(self, position: int) -> int:
        """Bytes while a gradient is produced."""
        flow = self._flow
        return flow.totals[0][position] + self._own_at(flow.time(flow.done[position]))

    def after_total(self, position: int) -> int:
        """Bytes when a hook is over."""
        flow = self._flow
        return flow.totals[2][position] + self._own_at(flow.time(flow.done[position + 1]))

    def hook_total(self, position: int) -> int:
        """Bytes at the worst of a hook."""
        flow, first = self._flow, self._first
        time = flow.time(flow.hook_done[position])
        own = self._own_at(time)
        numbers = range(flow.done[position], flow.done[position + 1])
        if first.costs_alike:
            return max([flow.totals[1][position] + own, *map(self._reducing, numbers)])
        of_others = [first.alike.total(n) + self._own_at(2 * n) for n in numbers]
        found = max([flow.totals[1][position] + own, *of_others])
        owners = {i for number in numbers for i in self._owners(number)}
        for i in owners:
            holder = self._holders[i]
            found = max(found, flow.totals[1][position] + holder.at(time))
            found = max([found, *[self._reduced_by(holder, number) for number in numbers]])
        return found

    def _owners(self, number: int) -> range:
        """Which of the ranks own a part of what a reduction takes."""
        low, high = self._first.owners(number)
        return range(bisect_left(self._numbers, low), bisect_right(self._numbers, high))

    @cached_property
    def _numbers(self) -> list[int]:
        """Numbers of the ranks, ascending, as are the holders from then on."""
        self._holders.sort(key=lambda holder: holder.rank)
        return [holder.rank for holder in self._holders]

    def _reduced_by(self, holder: Holder, number: int) -> int:
        """Bytes at the worst of a reduction, on one rank."""
        low, high = self._first.owners(number)
        if low <= holder.rank <= high:
            copies, going = self._first.own_cost(number, holder.rank)
        else:
            copies, going, _ = self._first.alike.cost(number)
        level = self._flow.flush_totals[number]
        return level + max(copies + holder.at(2 * number), going + holder.at(2 * number + 1))

    def _reducing(self, number: int) -> int:
        """Bytes at the worst of a reduction, where it costs all ranks alike."""
        alike, own = self._first.alike, self._own_at
        copies, going, _ = alike.cost(number)
        level = self._flow.flush_totals[number] + alike.left(number)
        return level + max(copies + own(2 * number), going + own(2 * number + 1))

    def epilogue_total(self, ceilings: Sequence[tuple[int, int]]) -> int:
        """Bytes at the highest after the last gradient.

        ``ceilings``: see ``copies.Ceilings.after``.
        """
        found = 0
        if self._afterwards:
            found = max([of.total for rank in self._ranks for of in rank.after_all()])
        for ceiling, number in ceilings:
            if ceiling + self.most_own <= found:
                break
            found = max(found, self._after_total(number))
        return found

    def epilogue_of_all(self) -> int:
        """Bytes then where ranks own no parts of what is reduced (stage 3)."""
        flow, alike = self._flow, self._first.alike
        late = [alike.total(number) for number in range(flow.done[-1], len(flow.flushes))]
        closing = flow.most_closing + alike.left(len(flow.flushes))
        return max([closing, *late]) + self._own_at(0)

    def _after_total(self, number: int) -> int:
        """Bytes at one of the levels after the last gradient (negative), or of a reduction."""
        flow, first = self._flow, self._first
        if number < 0:
            totals, times = flow.closing_totals
            return totals[~number] + self._own_at(times[~number])
        if first.costs_alike:
            return self._reducing(number)
        owned = [self._reduced_by(self._holders[i], number) for i in self._owners(number)]
        return max([first.alike.total(number) + self._own_at(2 * number), *owned])

    @cached_property
    def _ranks(self) -> list[Reduction]:
        return [self._first, *map(self._first.of_rank, self._others)]

    @property
    def start(self) -> Held:
        """Before the first gradient."""
        return max((of.start for of in self._ranks), key=total_of)

    def before(self, position: int) -> Held:
        """While the gradient at ``position`` is produced."""
        return max((of.before(position) for of in self._ranks), key=total_of)

    def hook(self, position: int) -> Held:
        """At the worst of its hook."""
        return max((of.hook(position) for of in self._ranks), key=total_of)

    def after(self, position: int) -> Held:
        """When its hook is over."""
        return max((of.after(position) for of in self._ranks), key=total_of)

    @cached_property
    def epilogue(self) -> Held:
        """The highest after the last gradient."""
        return max(self._after_all(), key=total_of)

    def _after_all(self) -> Iterator[Held]:
        flow, first, own = self._flow, self._first, self._own_at
        index = _place(
            [total + own(time) for total, time in zip(*flow.closing_totals, strict=True)]
        )
        yield from (of.closing(index) for of in self._ranks)
        late = range(flow.done[-1], len(flow.flushes))
        if late and first.costs_alike:
            number = max(late, key=self._reducing)
            yield from (of.reducing(number) for of in self._ranks)
        elif late:
            number = late[_place([first.alike.total(n) + own(2 * n) for n in late])]
            yield from (of.reducing(number) for of in self._ranks)
            yield from (of.reducing(number) for of in self._ranks for number in of.own_from(late))
        for of in self._ranks:
            yield from of.after_all()


def _place(values: Sequence[int]) -> int:
    """The place of the highest, the first of equals."""
    return values.index(max(values))


class _Tops:
    """The most that any holder has at a time."""

    def __init__(self, holders: Sequence[Holder]) -> None:
        self._holders = sorted(holders, key=lambda holder: -holder.most)
        self._held = max([holder.held for holder in holders])
        self._is_plain = not any(holder.is_followed for holder in holders)
        self._known: dict[int, int] = {}

    def __call__(self, time: int) -> int:
        found = self._known.get(time)
        if found is None:
            found = self._known[time] = self._at(time)
        return found

    def _at(self, time: int) -> int:
        if not self._is_plain:
            return self._followed(time)
        for holder in self._holders:
            if holder.begins() <= time:
                return max(self._held, holder.most)
        return self._held

    def _followed(self, time: int) -> int:
        """The most, where gradients in no buffer come and go."""
        holders = iter(self._holders)
        best = next(holders).at(time)
        for holder in holders:
            if holder.most <= best:
                break
            best = max(best, holder.at(time))
        return best
