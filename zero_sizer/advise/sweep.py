"""Peaks and step times of many candidates of one strategy."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import chain
from operator import itemgetter
from typing import Any, NamedTuple, cast

from zero_sizer.activations.select import error_above, is_closed_form
from zero_sizer.advise.lasting import (
    MOMENTS,
    OF_BATCH,
    PLACE,
    Lasting,
    Sums,
    Use,
    add,
    highest_of,
)
from zero_sizer.advise.view import ACCUMULATES, NUMBERS, PlanFamily, Values, View
from zero_sizer.hardware.cluster import Cluster
from zero_sizer.hardware.device import Device
from zero_sizer.ledger.entries import hpz
from zero_sizer.ledger.entries.states import from_first_step
from zero_sizer.ledger.kept_pinned import kept_on_host
from zero_sizer.ledger.moments import STEP, Moment
from zero_sizer.ledger.ranks import at_highest_rank, candidates, step_candidates
from zero_sizer.ledger.requests import room_of_gradients, room_of_passes, rooms_from
from zero_sizer.plan import sizes
from zero_sizer.plan.plan import Plan
from zero_sizer.speed import Case
from zero_sizer.speed.fed import work_for
from zero_sizer.speed.model import seconds_of, step_at
from zero_sizer.speed.rates import Rates, rates_of
from zero_sizer.speed.work import work_of
from zero_sizer.timeline import compose
from zero_sizer.timeline.overlay import Overlay, Zero
from zero_sizer.timeline.peaks import Rows, activations_alone
from zero_sizer.timeline.program import Layout
from zero_sizer.timeline.swapped_weights import stop_of
from zero_sizer.util.identity import Identity
from zero_sizer.zero.swap_stops import StopAt
from zero_sizer.zero.wrapper import Wrapper

_BATCH = "micro_batch"
_OF_BATCHES = OF_BATCH | {"grad_accum"}
_OF_GROUP = tuple(sorted({*NUMBERS, ACCUMULATES} - _OF_BATCHES))
_Overlays = tuple[Overlay, ...]
_PASSES = (PLACE[Moment.FORWARD], PLACE[Moment.BACKWARD])
_STEP = tuple(PLACE[moment] for moment in STEP)
_MANY = 4  # numbers of ranks from which on bounds are cheaper than each


class _Ranks(NamedTuple):
    """Ranks that may need most.

    Attributes:
        all: of the whole run.
        at_step: outside forward and backward.
        apart: each must be added up apart, because ranks differ both in what forward or backward
            hold and in what lasts.
    """

    all: tuple[int, ...]
    at_step: tuple[int, ...]
    apart: bool


class _Group:
    """Candidates that differ in their batch alone.

    Attributes:
        parts: what they have in common, by name.
        uses: micro batch -> peaks.
        overlays: what ZeRO holds at the places of each layout that a micro step can have.
    """

    __slots__ = ("overlays", "parts", "uses")

    def __init__(self) -> None:
        self.parts: dict[str, Any] = {}
        self.uses: dict[int, Mapping[Device, Use]] = {}
        self.overlays: dict[Identity, tuple[_Overlays, _Overlays]] = {}


class Sweep:
    """Every candidate plan of a job on one kind of node.

    Args:
        plans: one plan of each strategy, by name.
        cluster: the nodes; how many of them a candidate uses is its own.
    """

    def __init__(self, plans: Mapping[str, Plan], cluster: Cluster) -> None:
        self._family = PlanFamily(plans)
        base = self._family.base
        self.seq_len = base.seq_len
        self._ranks = base.ranks_per_node
        dtype = base.autocast_dtype or base.model_dtype
        self._rates = rates_of(cluster, dtype, Case.EXPECTED, base.attention_kernel)
        self._work = work_for(base) or work_of(base.model)
        self._is_closed_form = is_closed_form(base) or base.feed is not None
        self._is_bounded = all(tensor.trainable for tensor in base.model.parameters)
        self._worlds: set[int] = set()
        self._groups: dict[Any, _Group] = {}
        self._of_group = itemgetter(*_OF_GROUP)
        self._lasting = Lasting(self._family, self._ranks)

    def values(self, strategy: str, **numbers: Any) -> Values:
        """A candidate: a strategy with other numbers."""
        return self._family.values(strategy).with_numbers(**numbers)

    def plan(self, values: Values) -> Plan:
        """The candidate as a whole plan, for whoever wants to explain it."""
        return at_highest_rank(self._family.plan(values))

    def uses(self, values: Values) -> Mapping[Device, Use]:
        """The peak of every device, as ``sizing.size`` would give it."""
        group = self._group(values)
        found = self._ranks_of(group, values)
        if not found.apart:
            return self._uses(group, values, found)
        each = []
        for rank in found.all:
            there = values.on_rank(rank)
            each.append(self._uses(self._group(there), there, _Ranks((rank,), (rank,), False)))
        return max(each, key=lambda uses: uses[Device.GPU].num_bytes)

    def _group(self, values: Values) -> _Group:
        key = values.strategy, self._of_group(values.tokens)
        found = self._groups.get(key)
        if found is None:
            found = self._groups[key] = _Group()
        return found

    def _once(
        self, group: _Group, name: str, values: Values, compute: Callable[[View], Any]
    ) -> Any:
        """A formula that all of a group have in common; asked anew where it reads the batch."""
        found = group.parts.get(name)
        if found is None:
            found, reads = self._family.noted(name, values, compute)
            if _OF_BATCHES.isdisjoint(reads):
                group.parts[name] = found
        return found

    def _uses(self, group: _Group, values: Values, ranks: _Ranks) -> Mapping[Device, Use]:
        """The peak of every device, at every moment of the rank that holds most then."""
        batch = values.of[_BATCH]
        found = group.uses.get(batch)
        if found is None:
            rows = self._rows(group, values, ranks.at_step)
            row = rows[Device.GPU]
            gap = row[_PASSES[0]] - row[_PASSES[1]]
            passes = self._passes(group, values, ranks.all, gap)
            found = self._with_passes(group, values, ranks.at_step, rows, passes)
            group.uses[batch] = found
        return found

    def between(self, values: Values) -> tuple[Mapping[Device, Use], Mapping[Device, Use]] | None:
        """A lower and an upper bound of ``uses``, from other numbers of ranks; None: none is known.

        Where many numbers of ranks are asked about, powers of two tell of most of the others.
        """
        of, group = values.of, self._group(values)
        known = of[_BATCH] in group.uses
        wrapper = of.get("wrapper", self._family.base.wrapper)  # all the same where ZeRO is refused
        if known or not self._is_bounded or wrapper is not Wrapper.ZERO3:
            return None
        ranks, alike, at_step = of["dp_world_size"], *self._ranks_of(group, values)[:2]
        self._worlds.add(ranks)
        above = self._ranks
        while above < ranks:
            above *= 2
        below = above // 2
        if above == ranks or below < 2 or len(alike) > 1 or len(self._worlds) < _MANY:
            return None
        least, most = self._outline(values, above, True), self._outline(values, below, False)
        padding = (-above * least.per_rank, ranks * most.per_rank)
        found = []
        for outline, more in zip((least, most), padding, strict=True):
            passes = [size + more for size in outline.later]
            if outline.first is not None:
                missing = self._family.formula("missing", values, _missing)
                pairs = zip(outline.first, passes, strict=True)
                passes = [hpz.highest_step(first + more, later, missing) for first, later in pairs]
            forward, backward = passes
            rows = self._rows(group, values, at_step)
            found.append(self._with_passes(group, values, at_step, rows, (forward, backward)))
        return found[0], found[1]

    def _outline(self, values: Values, ranks: int, divides: bool) -> compose.Outline:
        found = partial(compose.outline, divides=divides)
        there = values.with_numbers(dp_world_size=ranks)
        return cast(compose.Outline, self._family.formula(("outline", divides), there, found))

    def _rows(
        self, group: _Group, values: Values, at_step: tuple[int, ...]
    ) -> dict[Device, list[int]]:
        """Bytes at every moment of the devices where the batch changes any, passes left out."""
        lasting = self._lasting_of(group, values, at_step)
        rows = {Device.GPU: list(lasting.rows[Device.GPU])}
        for index in chain.from_iterable(lasting.others):
            found = self._lasting.formula(index, values)
            if found is not None:
                device = found[0]
                add(rows.setdefault(device, list(lasting.rows[device])), *found[1:])
        return rows

    def _with_passes(
        self,
        group: _Group,
        values: Values,
        at_step: tuple[int, ...],
        rows: dict[Device, list[int]],
        totals: compose.Totals,
    ) -> Mapping[Device, Use]:
        """The peak of every device with so many bytes in forward and backward."""
        family, lasting = self._family, self._lasting_of(group, values, at_step)
        row = rows[Device.GPU]
        for place, size in zip(_PASSES, totals, strict=True):
            row[place] += size
        others = {device: highest_of(of) for device, of in rows.items() if of is not row}
        kept = self._once(group, "kept", values, _kept)
        if kept:
            on_host = others.get(Device.HOST) or lasting.uses[Device.HOST]
            others[Device.HOST] = replace(on_host, kept=kept)
        size = max(row)
        passes, step = (max([row[place] for place in places]) for places in (_PASSES, _STEP))
        of_gradients = self._once(group, "room of gradients", values, _room_of_gradients)
        of_passes = family.formula("room of passes", values, _room_of_passes)
        room = rooms_from(of_passes, of_gradients).beside(passes, step, size)
        error = family.formula("error", values, _error) if self._is_closed_form else 0
        on_gpu = Use(size, MOMENTS[row.index(size)], room, error)
        return {**lasting.uses, **others, Device.GPU: on_gpu}

    def unchanging(self, values: Values) -> Mapping[Device, Use]:
        """A lower bound of ``uses`` for any number of ranks and any buffers, the cheapest.

        What none of the numbers changes, with the activations of forward and backward alone.
        """
        fixed = self._lasting.fixed(values)
        alone = activations_alone(self._family.formula("activations", values, _activations))
        row = list(fixed.rows[Device.GPU])
        for place, size in zip(_PASSES, alone, strict=True):
            row[place] += size
        return {**fixed.uses, Device.GPU: highest_of(row)}

    def at_least(self, values: Values) -> Mapping[Device, Use]:
        """A lower bound of ``uses``, cheap: without forward, backward and what a batch changes."""
        group = self._group(values)
        at_step = self._ranks_of(group, values).at_step
        return self._lasting_of(group, values, at_step).uses

    def stops(self, values: Values) -> bool:
        """True if DeepSpeed is known to stop, because weights on NVMe find no buffer."""
        return self._family.formula("stop", values, _stop) is not None

    def without_zero(self, values: Values) -> Mapping[Device, Use]:
        """A lower bound of ``uses``: forward and backward with their activations alone.

        Off the GPU it is what ``uses`` gives.
        """
        group = self._group(values)
        _, at_step, apart = self._ranks_of(group, values)
        if apart:
            return self.at_least(values)
        alone = activations_alone(self._family.formula("activations", values, _activations))
        rows = self._rows(group, values, at_step)
        return self._with_passes(group, values, at_step, rows, alone)

    def _ranks_of(self, group: _Group, values: Values) -> _Ranks:
        return cast(_Ranks, self._once(group, "ranks", values, _ranks))

    def _lasting_of(self, group: _Group, values: Values, ranks: tuple[int, ...]) -> Sums:
        """Everything but forward and backward that the micro batch does not change."""
        key = "lasting" if len(ranks) == 1 else "highest lasting"
        found = group.parts.get(key)
        if found is None:
            found = self._once(group, key, values, partial(self._on_highest, values, ranks))
        return cast(Sums, found)

    def _on_highest(self, values: Values, ranks: tuple[int, ...], view: View) -> Sums:
        self._family.formula("ranks", values, _ranks, view.reads)
        return self._lasting.highest(values, ranks, view)

    def _passes(
        self, group: _Group, values: Values, ranks: tuple[int, ...], gap: int
    ) -> compose.Totals:
        """Bytes of forward and backward at their highest (``gap``: ``peaks.highest_totals``)."""
        found = self._family.formula("micro step", values, _micro_step)
        activations, layout = cast(tuple[Rows, Layout], found)
        of_layout = Identity(layout)
        overlays = group.overlays.get(of_layout)
        if overlays is None:
            find = partial(self._zeros, values, ranks)
            zeros = self._once(group, "zeros", values, find)
            first = self._once(group, "first", values, _first)
            overlays = compose.overlays_of(layout, zeros), compose.overlays_of(layout, first)
            group.overlays[of_layout] = overlays
        later, first = overlays
        totals = compose.highest_of(activations, later, gap)
        if not first:
            return totals
        missing = self._once(group, "missing", values, _missing)
        return hpz.with_first(compose.highest_of(activations, first, gap), totals, missing)

    def _zeros(self, values: Values, ranks: tuple[int, ...], view: View) -> tuple[Zero, ...]:
        self._family.formula("ranks", values, _ranks, view.reads)
        of_first = self._family.view(values.on_rank(ranks[0]))
        found = compose.zeros_of_all(cast(Plan, of_first), ranks)
        view.reads.update(of_first.reads)
        return found

    def seconds(self, values: Values) -> float:
        """Predicted seconds of one optimizer step; 0 when no GPU was named."""
        if self._rates is None:
            return 0.0
        found = self._family.formula("seconds", values, partial(self._seconds, self._rates))
        return cast(float, found)

    def _seconds(self, rates: Rates, view: View) -> float:
        plan = cast(Plan, view)
        return seconds_of(step_at(plan, rates, self._work))


def _ranks(view: Any) -> _Ranks:
    ranks = candidates(view)
    is_muon = any(row.newton_schulz for row in view.group_optimizers)
    apart = len(ranks) > 1 and (is_muon or sizes.has_grad_accum_attribute(view))
    return _Ranks(ranks, ranks if apart else step_candidates(view), apart)


def _activations(view: Any) -> Rows:
    return compose.rows_of(view)


def _stop(view: Any) -> StopAt | None:
    return stop_of(view) if view.param_device is Device.NVME else None


def _micro_step(view: Any) -> tuple[Rows, Layout]:
    return compose.micro_step_of(view)


def _first(view: Any) -> tuple[Zero, ...]:
    return hpz.first_of(view)


def _kept(view: Any) -> int:
    return kept_on_host(view)


def _room_of_passes(view: Any) -> tuple[int, int]:
    return room_of_passes(view)


def _room_of_gradients(view: Any) -> tuple[int, int]:
    return room_of_gradients(view)


def _missing(view: Any) -> int:
    return from_first_step(view)


def _error(view: Any) -> int:
    return error_above(view)
