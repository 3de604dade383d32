"""Of several ranks the one that holds most while gradients flow, place by place."""

from collections.abc import Sequence

from zero_sizer.zero.gradient_flow import Flow
from zero_sizer.zero.reduction import Held, Reduction, total_of


class Highest:
    """Of some ranks the one that holds most, at every place.

    Attributes:
        start: before the first gradient.
        epilogue: the highest after the last gradient.
    """

    def __init__(self, flow: Flow, ranks: Sequence[Reduction]) -> None:
        self._flow = flow
        self._ranks = ranks
        self._offsets = list(map(max, zip(*(of.offsets() for of in ranks), strict=True)))
        self._is_plain = not any(self._offsets)
        self.start = max((of.start for of in ranks), key=total_of)
        self.epilogue = self._epilogue()

    def before_totals(self) -> Sequence[int]:
        """Bytes while each gradient is produced."""
        return self._above(self._flow.totals[0], self._flow.done)

    def hook_totals(self) -> Sequence[int]:
        """Bytes at the worst of each hook."""
        totals = list(self._above(self._ranks[0].alike.hooks, self._flow.hook_done))
        for of in self._ranks:
            for position in of.own_hooks():
                totals[position] = max(totals[position], of.hook(position).total)
        return totals

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

    def _epilogue(self) -> Held:
        totals, numbers = self._flow.closing_totals
        index = _place(self._above(totals, numbers))
        found = [of.closing(index) for of in self._ranks]
        first, count = self._flow.done[-1], len(self._flow.flushes)
        if first < count:
            late = range(first, count)
            levels = [self._ranks[0].alike.totals[number] for number in late]
            number = late[_place(self._above(levels, late))]
            found += [of.reducing(number) for of in self._ranks]
        found += [held for of in self._ranks for held in of.after_all()]
        return max(found, key=total_of)

    def _above(self, totals: Sequence[int], done: Sequence[int]) -> Sequence[int]:
        if self._is_plain:
            return totals
        offsets = self._offsets
        return [total + offsets[number] for total, number in zip(totals, done, strict=False)]


def _place(values: Sequence[int]) -> int:
    """The place of the highest, the first of equals."""
    return values.index(max(values))
