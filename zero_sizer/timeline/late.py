"""Bytes of places that are worked out where they may be the highest.

What ranks hold of gathered parameters and of gradients differs with how many there are, and at
stages 1 and 2 with which one it is. What none of many exceeds is listed once for all of them.
"""

from collections.abc import Sequence
from dataclasses import replace
from operator import add
from typing import Any, NamedTuple

from zero_sizer.timeline.gathered import Levels, gathered_at
from zero_sizer.timeline.passes import Columns, Listed, Side
from zero_sizer.timeline.program import Program
from zero_sizer.util.caches import cached_large
from zero_sizer.util.identity import Identity
from zero_sizer.zero.copies import Alike, Costs, ceilings, scattered
from zero_sizer.zero.forms import SPAN, below
from zero_sizer.zero.gradient_flow import Flow, Rules, Tensors
from zero_sizer.zero.highest import Highest
from zero_sizer.zero.share import NOTHING_OWN, Share


class Bound(NamedTuple):
    """Bytes at places.

    Attributes:
        columns: them, column by column.
        most: no place has more.
    """

    columns: Columns
    most: int


class Late:
    """Bytes of a pass, of few places (``passes.Columns``).

    Args:
        ceiling: no place exceeds it but for ``slack``.
        slack: bytes.
        exact: what there is.
    """

    def __init__(self, ceiling: Listed, slack: int, exact: Listed) -> None:
        self._ceiling = ceiling
        self._slack = slack
        self._exact = exact

    def highest_beside(self, columns: tuple[int, ...], first: int, slope: int, best: int) -> int:
        """See ``Columns``."""
        if self._ceiling.most_beside(columns, slope) + first + self._slack > best:
            for column in columns:
                best = self._highest_of(column, first, slope, best)
        return best

    def place_beside(self, column: int, first: int, slope: int) -> tuple[int, int]:
        """See ``Columns``."""
        return self._exact.place_beside(column, first, slope)

    def _highest_of(self, column: int, first: int, slope: int, best: int) -> int:
        values, most = self._ceiling.column(column)
        beside = self._slack + first
        least = best - beside  # a place that may be higher has more than that
        if most + max(slope * (len(values) - 1), 0) <= least:
            return best
        totals = list(map(add, values, range(0, slope * len(values), slope))) if slope else values
        places = [(total, block) for block, total in enumerate(totals) if total > least]
        for total, block in sorted(places, reverse=True):
            if total + beside <= best:
                break
            best = max(best, self._exact.at(column, block) + first + slope * block)
        return best


class _Ceiling(NamedTuple):
    """``Bound`` of ceilings."""

    columns: Listed
    most: int


class Owned(Sequence[int]):
    """Bytes of which ``Program.held`` says which there are, on the rank that holds most.

    Args:
        highest: the ranks.
        start: bytes before the first gradient.
        count: how many gradients.
    """

    def __init__(self, highest: Highest, start: int, count: int) -> None:
        self._totals = (highest.before_total, highest.hook_total, highest.after_total)
        self._count = count
        self._known = {0: start}

    def __len__(self) -> int:
        return 1 + 3 * self._count

    def __getitem__(self, source: Any) -> Any:
        found = self._known.get(source)
        if found is None:
            kind, position = divmod(source - 1, self._count)
            found = self._known[source] = self._totals[kind](position)
        return found


def owned(program: Program, flow: Flow, highest: Highest, costs: Costs, start: int) -> Bound:
    """Backward where ranks share out what is reduced (stages 1 and 2)."""
    ceiling = _of_owners(Identity(program), Identity(flow), costs)
    values = Owned(highest, start, len(flow.hook))
    exact = Listed(None, Side(values, *program.held), program.backward_spans)
    own = highest.most_own
    return Bound(Late(ceiling.columns, own, exact), ceiling.most + own)


@cached_large(maxsize=512)
def _of_owners(program: Identity, flow: Identity, costs: Costs) -> _Ceiling:
    """What no rank of any number exceeds beside its own."""
    of: Program = program.of
    before, _, after = flow.of.totals
    hooks = ceilings(flow, costs).hooks
    values = of.held_bytes(sum(flow.of.start), before, hooks, after)
    return _Ceiling(Listed(None, Side(values, *of.held), of.backward_spans), max(values))


class Scattered(dict[int, int]):
    """Bytes of which ``Program.held`` says which there are, where all ranks hold the same.

    Args:
        flow: the gradients.
        alike: what reducing them costs.
        start: bytes before the first.
    """

    def __init__(self, flow: Flow, alike: Alike, start: int) -> None:
        super().__init__({0: start})
        self._flow = flow
        self._alike = alike
        self._more = start - sum(flow.start)

    def __missing__(self, source: int) -> int:
        flow, alike = self._flow, self._alike
        kind, position = divmod(source - 1, len(flow.hook))
        if kind == 1:
            found = alike.hook(position)
        else:
            found = flow.totals[kind][position] + alike.left(flow.done[position + kind // 2])
        found = self[source] = found + self._more
        return found


def gathered(
    levels: Levels,
    program: Program,
    how: tuple[Tensors, Rules, Share],
    flow: Flow,
    alike: Alike,
    start: int,
) -> tuple[Bound, Bound]:
    """Forward and backward where parameters are gathered (stage 3).

    Args:
        levels: what is gathered.
        program: the places.
        how: gradients are reduced.
        flow: the gradients.
        alike: what reducing them costs.
        start: bytes of them before the first.
    """
    tensors, rules, share = how
    bound = replace(share, ranks=below(share.ranks), divides=False, own=NOTHING_OWN)
    keys = Identity(levels), Identity(program), Identity(flow), Identity(tensors)
    in_forward, in_backward = _of_many(*keys, rules, bound)
    forward, backward = gathered_at(Identity(levels), share.ranks)
    at_start = Listed(forward, start, program.forward_spans)
    values = Scattered(flow, alike, start)
    later = Listed(backward, Side(values, *program.held), program.backward_spans)
    more = start - sum(flow.start) + alike.left(len(flow.flushes))
    return (
        Bound(Late(in_forward.columns, start, at_start), in_forward.most + start),
        Bound(Late(in_backward.columns, more, later), in_backward.most + more),
    )


@cached_large(maxsize=512)
def _of_many(
    levels: Identity,
    program: Identity,
    flow: Identity,
    tensors: Identity,
    rules: Rules,
    share: Share,
) -> tuple[_Ceiling, _Ceiling]:
    """What none exceeds on ``share.ranks``, and on less than ``SPAN`` times as many.

    All that reductions cost falls with the number of ranks, but for what tensors are padded by
    where they are copied to be reduced. Left out is what gradients take before the first, and what
    stays of them (``Alike.left``).
    """
    of: Program = program.of
    reductions: Flow = flow.of
    lying: Levels = levels.of
    values = lying.ceilings(share.ranks)
    in_forward, in_backward = lying.most(values)
    alike = scattered(reductions, tensors.of, rules, share, leaves=False)
    hooks, _ = alike.hooks()
    copied = max(*share.cast_itemsizes, rules.itemsize)
    more = SPAN * share.ranks * copied * reductions.most_together
    before, _, after = reductions.totals
    held = of.held_bytes(sum(reductions.start), before, [hook + more for hook in hooks], after)
    forward = Listed(Side(values, *lying.forward), 0, of.forward_spans)
    backward = Listed(Side(values, *lying.backward), Side(held, *of.held), of.backward_spans)
    return _Ceiling(forward, in_forward), _Ceiling(backward, in_backward + max(held))
