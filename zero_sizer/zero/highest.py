"""Of several ranks the one that holds most while gradients flow, place by place."""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

from zero_sizer.zero import envelope
from zero_sizer.zero.gradient_flow import Flow
from zero_sizer.zero.reduction import Held, Reduction, total_of


class Highest:
    """Of some ranks the one that holds most, at every place.

    Attributes:
        start: before the first gradient.
        most_own: bytes that none has more of its own at any time.
    """

    def __init__(self, flow: Flow, ranks: Sequence[Reduction]) -> None:
        self._flow = flow
        self._ranks = ranks
        changes = ((*change, i) for i, of in enumerate(ranks) for change in of.changes())
        found = envelope.tops([of.own.held for of in ranks], changes, 2 * len(flow.flushes))
        own, self._holders = found
        self.most_own = max(own)
        self._offsets, self._within = own[::2], own[1::2]  # before each reduction, and at its end
        self._is_plain = not any(own)
        self.start = max((of.start for of in ranks), key=total_of)

    @property
    def columns(self) -> Sequence[Callable[[], Sequence[int]]]:
        """Bytes before each gradient, in its hook and after it."""
        return self.before_totals, self.hook_totals, self.after_totals

    def before_totals(self) -> Sequence[int]:
        """Bytes while each gradient is produced."""
        return self._above(self._flow.totals[0], self._flow.done)

    def hook_totals(self) -> Sequence[int]:
        """Bytes at the worst of each hook."""
        if self._is_plain and not self._owners:
            return self._ranks[0].alike.hooks()
        return [self.hook_total(position) for position in range(len(self._flow.hook))]

    def hook_total(self, position: int) -> int:
        """Bytes at the worst of a hook."""
        flow, first = self._flow, self._ranks[0]
        offset = self._offsets[flow.hook_done[position]]
        if first.costs_alike:
            numbers = range(flow.done[position], flow.done[position + 1])
            totals = map(self._reducing, numbers)
            return max([flow.totals[1][position] + offset, *totals])
        owners = self._owners.get(position, ())
        return max(
            [first.alike.hook(position) + offset, *[of.hook(position).total for of in owners]]
        )

    @cached_property
    def _owners(self) -> dict[int, list[Reduction]]:
        """Ranks that own a part of what a hook reduces."""
        found: dict[int, list[Reduction]] = {}
        for of in self._ranks:
            for position in of.own_hooks():
                found.setdefault(position, []).append(of)
        return found

    def after_totals(self) -> Sequence[int]:
        """Bytes when each hook is over."""
        return self._above(self._flow.totals[2], self._flow.done[1:])

    def before(self, position: int) -> Held:
        """While the gradient at ``position`` is produced."""
        return max((of.before(position) for of in self._ranks), key=total_of)

    def hook(self, position: int) -> Held:
        """At the worst of its hook."""
        return max((of.hook(position) for of in self._ranks), key=total_of)

    def after(self, position: int) -> Held:
        """When its hook is over."""
        return max((of.after(position) for of in self._ranks), key=total_of)

    def _reducing(self, number: int) -> int:
        """Bytes at the worst of a reduction, where it costs all ranks alike."""
        copies, going, _ = self._ranks[0].alike.cost(number)
        level = self._flow.flush_totals[number]
        return level + max(copies + self._offsets[number], going + self._within[number])

    @cached_property
    def epilogue(self) -> Held:
        """The highest after the last gradient."""
        return max(self._after_all(), key=total_of)

    def _after_all(self) -> Iterator[Held]:
        totals, numbers = self._flow.closing_totals
        index = _place(self._above(totals, numbers))
        yield self._ranks[self._holders[2 * numbers[index]]].closing(index)
        late = range(self._flow.done[-1], len(self._flow.flushes))
        if not self._ranks[0].costs_alike:
            if late:
                levels = [self._ranks[0].alike.total(number) for number in late]
                number = late[_place(self._above(levels, late))]
                yield from (of.reducing(number) for of in self._ranks)
            yield from (of.reducing(number) for of in self._ranks for number in of.own_from(late))
        elif late:
            number = max(late, key=self._reducing)
            for time in (2 * number, 2 * number + 1):
                yield self._ranks[self._holders[time]].reducing(number)
        for of in self._ranks:
            yield from of.after_all()

    def _above(self, totals: Sequence[int], done: Sequence[int]) -> Sequence[int]:
        if self._is_plain:
            return totals
        offsets = self._offsets
        return [total + offsets[number] for total, number in zip(totals, done, strict=False)]


def _place(values: Sequence[int]) -> int:
    """The place of the highest, the first of equals."""
    return values.index(max(values))
