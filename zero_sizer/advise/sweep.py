"""Peaks and step times of many candidates of one strategy."""

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from itertools import chain, takewhile
from operator import itemgetter
from typing import Any, NamedTuple, cast

from zero_sizer.activations.levels import MicroStep
from zero_sizer.activations.select import error_above, is_closed_form
from zero_sizer.advise.view import ACCUMULATES, NUMBERS, PlanFamily, Values, View
from zero_sizer.hardware.cluster import Cluster
from zero_sizer.hardware.device import Device
from zero_sizer.ledger import entries
from zero_sizer.ledger.entries import forward_backward as passes
from zero_sizer.ledger.entries import hpz
from zero_sizer.ledger.entries.states import from_first_step
from zero_sizer.ledger.entry import Entry, footprint
from zero_sizer.ledger.moments import STEP, Moment
from zero_sizer.ledger.ranks import at_highest_rank, candidates, step_candidates
from zero_sizer.ledger.requests import Rooms, rooms_of
from zero_sizer.plan import sizes
from zero_sizer.plan.parallel import ranks_of
from zero_sizer.plan.plan import Plan
from zero_sizer.speed import Case
from zero_sizer.speed.model import time_of
from zero_sizer.speed.rates import Rates, rates_of
from zero_sizer.speed.step import Step
from zero_sizer.speed.work import work_of
from zero_sizer.timeline import compose
from zero_sizer.timeline.overlay import Overlay, Zero
from zero_sizer.timeline.program import Layout
from zero_sizer.util.identity import Identity
from zero_sizer.util.records import dataclass
from zero_sizer.zero.wrapper import Wrapper

_MOMENTS = tuple(Moment)
_PLACE = {moment: index for index, moment in enumerate(_MOMENTS)}
_PASSES = (_PLACE[Moment.FORWARD], _PLACE[Moment.BACKWARD])
_STEP = tuple(_PLACE[moment] for moment in STEP)
_BESIDE = hpz.IN_PASSES  # what they hold is told from the timeline, too
_LASTING = tuple(e for e in entries.ENTRIES if e not in passes.ENTRIES and e not in _BESIDE)
_BATCH = "micro_batch"
_PASSING = frozenset(
    (
        _BATCH,
        "grad_accum",
        ACCUMULATES,
        "checkpointing",
        "reduce_bucket_size",
        "prefetch_bucket_size",
        "max_live_parameters",
        "max_reuse_distance",
        "persistence_threshold",
    )
)
"""Numbers about forward and backward, which little of what lasts reads."""
_OF_BATCH = frozenset({_BATCH})
_OF_BATCHES = _OF_BATCH | {"grad_accum"}
_OF_GROUP = tuple(sorted({*NUMBERS, ACCUMULATES} - _OF_BATCHES))
_OF_ANY = frozenset((*NUMBERS, ACCUMULATES))
_Overlays = tuple[Overlay, ...]
_MANY = 4  # numbers of ranks from which on bounds are cheaper than each


@dataclass(frozen=True, slots=True)
class Use:
    """Bytes that one candidate needs of a device at its highest instant; per rank, or per node.

    Attributes:
        num_bytes: live then.
        moment: the instant.
        room: bytes that must be there beside it (``passes.requests.room_of``); of the GPU alone.
        error: the most by which a closed form may be too low or too high; of the GPU alone.
    """

    num_bytes: int
    moment: Moment
    room: int = 0
    error: int = 0


class _Sums(NamedTuple):
    """What does not change where some numbers vary.

    Attributes:
        rows: per device, bytes at each moment.
        uses: per device, the highest of them.
        others: which of ``_LASTING`` those numbers do change, those together that read the same.
        by_rank: which of them ranks differ in; they are not added.
    """

    rows: dict[Device, list[int]]
    uses: dict[Device, Use]
    others: list[tuple[int, ...]]
    by_rank: list[int]


class _Several(NamedTuple):
    """Some of ``_LASTING``, as ``_Sums`` takes them.

    Attributes:
        added: device, bytes and places of those that are added.
        others: what others read, and which they are.
        by_rank: see ``_Sums``.
    """

    added: list[tuple[Device, int, tuple[int, ...]]]
    others: list[tuple[tuple[str, ...], int]]
    by_rank: list[int]


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
        self._rates = rates_of(cluster, base.autocast_dtype or base.model_dtype, Case.EXPECTED)
        self._work = work_of(base.model)
        self._is_closed_form = is_closed_form(base) or base.feed is not None
        self._is_bounded = all(tensor.trainable for tensor in base.model.parameters)
        self._worlds: set[int] = set()
        self._groups: dict[Any, _Group] = {}
        self._of_group = itemgetter(*_OF_GROUP)
        self._reads: dict[tuple[int, int], tuple[dict[str, None], bool, bool]] = {}
        self._allocate = [_Allocate(entry, self._ranks) for entry in _LASTING]

    def values(self, strategy: str, **numbers: float) -> Values:
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
            there = values.with_numbers(rank=rank)
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
            passes = self._passes(group, values, ranks.all)
            found = self._with_passes(group, values, ranks.at_step, passes)
            group.uses[batch] = found
        return found

    def between(self, values: Values) -> tuple[Mapping[Device, Use], Mapping[Device, Use]] | None:
        """A lower and an upper bound of ``uses``, from other numbers of ranks; None: none is known.

        Where many numbers of ranks are asked about, powers of two tell of most of the others.
        """
        of, group = values.of, self._group(values)
        known = of[_BATCH] in group.uses
        if known or not self._is_bounded or of["wrapper"] is not Wrapper.ZERO3:
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
            found.append(self._with_passes(group, values, at_step, (forward, backward)))
        return found[0], found[1]

    def _outline(self, values: Values, ranks: int, divides: bool) -> compose.Outline:
        found = partial(compose.outline, divides=divides)
        there = values.with_numbers(dp_world_size=ranks)
        return cast(compose.Outline, self._family.formula(("outline", divides), there, found))

    def _with_passes(
        self, group: _Group, values: Values, at_step: tuple[int, ...], totals: compose.Totals
    ) -> Mapping[Device, Use]:
        """The peak of every device with so many bytes in forward and backward."""
        family, lasting = self._family, self._lasting_of(group, values, at_step)
        rows = {Device.GPU: list(lasting.rows[Device.GPU])}
        for index in chain.from_iterable(lasting.others):
            found = family.formula(index, values, self._allocate[index])
            if found is not None:
                device = found[0]
                _add(rows.setdefault(device, list(lasting.rows[device])), *found[1:])
        row = rows[Device.GPU]
        for place, size in zip(_PASSES, totals, strict=True):
            row[place] += size
        others = {device: _highest(of) for device, of in rows.items() if of is not row}
        size = max(row)
        passes, step = (max([row[place] for place in places]) for places in (_PASSES, _STEP))
        rooms = cast(Rooms, family.formula("rooms", values, _rooms))
        room = rooms.beside(passes, step, size)
        error = family.formula("error", values, _error) if self._is_closed_form else 0
        on_gpu = Use(size, _MOMENTS[row.index(size)], room, error)
        return {**lasting.uses, **others, Device.GPU: on_gpu}

    def at_least(self, values: Values) -> Mapping[Device, Use]:
        """A lower bound of ``uses``, cheap: without forward, backward and what a batch changes."""
        group = self._group(values)
        at_step = self._ranks_of(group, values).at_step
        return self._lasting_of(group, values, at_step).uses

    def _ranks_of(self, group: _Group, values: Values) -> _Ranks:
        return cast(_Ranks, self._once(group, "ranks", values, _ranks))

    def _lasting_of(self, group: _Group, values: Values, ranks: tuple[int, ...]) -> _Sums:
        """Everything but forward and backward that the micro batch does not change."""
        key = "lasting" if len(ranks) == 1 else "highest lasting"
        found = group.parts.get(key)
        if found is None:
            compute = partial(self._highest_lasting, values, ranks)
            found = self._once(group, key, values, compute)
        return cast(_Sums, found)

    def _highest_lasting(self, values: Values, ranks: tuple[int, ...], view: View) -> _Sums:
        self._family.formula("ranks", values, _ranks, view.reads)
        known = self._lasting(values, view)
        if not known.by_rank:
            return known
        each = [self._of_rank(known, self._on(values, rank)) for rank in ranks]
        rows = {
            device: list(map(max, zip(*(found[device] for found in each), strict=True)))
            for device in Device
        }
        uses = {device: _highest(row) for device, row in rows.items()}
        return _Sums(rows, uses, known.others, [])

    def _of_rank(self, known: _Sums, values: Values) -> dict[Device, list[int]]:
        """``known`` with what one rank adds; not kept, because the highest of all is."""
        rows = {device: list(row) for device, row in known.rows.items()}
        for index in known.by_rank:
            found = self._allocate[index](self._family.view(values))
            if found is not None:
                _add(rows[found[0]], *found[1:])
        return rows

    def _on(self, values: Values, rank: int) -> Values:
        return values if values.of["rank"] == rank else values.with_numbers(rank=rank)

    def _passes(self, group: _Group, values: Values, ranks: tuple[int, ...]) -> compose.Totals:
        """Bytes of forward and backward at their highest."""
        found = self._family.formula("micro step", values, compose.micro_step_of)
        step, layout = cast(tuple[MicroStep, Layout], found)
        of_layout = Identity(layout)
        overlays = group.overlays.get(of_layout)
        if overlays is None:
            find = partial(self._zeros, values, ranks)
            zeros = self._once(group, "zeros", values, find)
            first = self._once(group, "first", values, hpz.first_of)
            overlays = compose.overlays_of(layout, zeros), compose.overlays_of(layout, first)
            group.overlays[of_layout] = overlays
        later, first = overlays
        totals = compose.highest_of(step, later)
        if not first:
            return totals
        missing = self._once(group, "missing", values, _missing)
        return hpz.with_first(compose.highest_of(step, first), totals, missing)

    def _zeros(self, values: Values, ranks: tuple[int, ...], view: View) -> tuple[Zero, ...]:
        self._family.formula("ranks", values, _ranks, view.reads)
        of_first = self._family.view(self._on(values, ranks[0]))
        found = compose.zeros_of_all(cast(Plan, of_first), ranks)
        view.reads.update(of_first.reads)
        return found

    def _lasting(self, values: Values, view: View) -> _Sums:
        owned = self._family.formula("owned", values, partial(self._owned, values), view.reads)
        return self._sums(owned, values, view, _OF_BATCH)

    def _owned(self, values: Values, view: View) -> _Sums:
        """What neither the batch nor buffers change: most of it, for many candidates."""
        fixed = self._family.formula("fixed", values, partial(self._fixed, values), view.reads)
        return self._sums(fixed, values, view, _PASSING)

    def _fixed(self, values: Values, view: View) -> _Sums:
        """What none of the numbers changes: the strategy's own, with all it does not have."""
        nothing = {device: [0] * len(_MOMENTS) for device in Device}
        every = _Sums(nothing, {}, [(index,) for index in range(len(_LASTING))], [])
        return self._sums(every, values, view, _OF_ANY)

    def _sums(self, known: _Sums, values: Values, view: View, numbers: frozenset[str]) -> _Sums:
        """``known`` and those of its others that do not read ``numbers``.

        Before its first number a formula reads the strategy alone, so that decides whether it
        reads any.
        """
        rows = {device: list(row) for device, row in known.rows.items()}
        by_rank = list(known.by_rank)
        others: dict[tuple[str, ...], list[int]] = {}
        for alike in known.others:
            find = partial(self._several, alike, values, numbers)
            key = alike, id(numbers)
            several = self._family.formula(key, values, find, view.reads)
            for found in several.added:
                _add(rows[found[0]], *found[1:])
            by_rank += several.by_rank
            for reads, index in several.others:
                others.setdefault(reads, []).append(index)
        uses = {device: _highest(row) for device, row in rows.items()}
        return _Sums(rows, uses, [tuple(alike) for alike in others.values()], by_rank)

    def _several(
        self, alike: tuple[int, ...], values: Values, numbers: frozenset[str], view: View
    ) -> "_Several":
        """Entries that read the same, as far as they have been met."""
        added, others, by_rank = [], [], []
        for index in alike:
            found, reads = self._family.noted(index, values, self._allocate[index])
            before, reads_any, reads_rank = self._before(reads, numbers)
            if reads_any:
                others.append((tuple(reads), index))
            elif reads_rank:
                by_rank.append(index)
            elif found is not None:
                added.append(found)
            view.reads.update(before)
        return _Several(added, others, by_rank)

    def _before(
        self, reads: dict[str, None], numbers: frozenset[str]
    ) -> tuple[dict[str, None], bool, bool]:
        """What is read before the first of ``numbers``; whether any is, and the rank."""
        key = id(reads), id(numbers)  # both are kept: see ``view.Noted``
        known = self._reads.get(key)
        if known is None:
            before = dict.fromkeys(takewhile(lambda name: name not in numbers, reads))
            known = before, not numbers.isdisjoint(reads), "rank" in reads
            self._reads[key] = known
        return known

    def seconds(self, values: Values) -> float:
        """Predicted seconds of one optimizer step; 0 when no GPU was named."""
        if self._rates is None:
            return 0.0
        found = self._family.formula("seconds", values, partial(self._seconds, self._rates))
        return cast(float, found)

    def _seconds(self, rates: Rates, view: View) -> float:
        plan = cast(Plan, view)
        step = Step(plan=plan, rates=rates, work=self._work, nodes=ranks_of(plan).nodes)
        return time_of(step).seconds


def _ranks(view: Any) -> _Ranks:
    ranks = candidates(view)
    is_muon = any(row.newton_schulz for row in view.group_optimizers)
    apart = len(ranks) > 1 and (is_muon or sizes.has_grad_accum_attribute(view))
    return _Ranks(ranks, ranks if apart else step_candidates(view), apart)


def _rooms(view: Any) -> Rooms:
    return rooms_of(view)


def _missing(view: Any) -> int:
    return from_first_step(view)


def _error(view: Any) -> int:
    return error_above(view)


class _Allocate:
    """One ledger entry as a formula: device, bytes (all ranks of a node off the GPU), moments."""

    __slots__ = ("_entry", "_ranks")

    def __init__(self, entry: Entry, ranks: int) -> None:
        self._entry = entry
        self._ranks = ranks

    def __call__(self, view: Any) -> tuple[Device, int, tuple[int, ...]] | None:
        found = footprint(self._entry, view, self._ranks)
        if found is None:
            return None
        device, size, moments = found
        return device, size, _places(moments)


@lru_cache(maxsize=256)
def _places(moments: frozenset[Moment]) -> tuple[int, ...]:
    return tuple([_PLACE[moment] for moment in moments])


def _add(row: list[int], size: int, places: tuple[int, ...]) -> None:
    for place in places:
        row[place] += size


def _highest(row: list[int]) -> Use:
    size = max(row)
    return Use(size, _MOMENTS[row.index(size)])
