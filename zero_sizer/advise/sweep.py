"""Peaks and step times of many candidates of one strategy."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile
from typing import Any, NamedTuple, cast

from zero_sizer import features
from zero_sizer.advise.view import ACCUMULATES, NUMBERS, Family, Values, View
from zero_sizer.features import passes
from zero_sizer.hardware.cluster import Cluster
from zero_sizer.ledger import Entry, evaluate
from zero_sizer.moments import PASSES, STEP, Moment
from zero_sizer.passes.compose import closed_form_error, is_closed_form
from zero_sizer.passes.requests import Rooms, rooms_of
from zero_sizer.plan import Device, Plan
from zero_sizer.speed import Case
from zero_sizer.speed.model import time_of
from zero_sizer.speed.rates import rates_of
from zero_sizer.speed.step import Step
from zero_sizer.speed.work import work_of
from zero_sizer.units import ceil_div

_MOMENTS = tuple(Moment)
_PLACE = {moment: index for index, moment in enumerate(_MOMENTS)}
_PASSES = tuple(_PLACE[moment] for moment in PASSES)
_STEP = tuple(_PLACE[moment] for moment in STEP)
_LASTING = tuple(entry for entry in features.ENTRIES if entry not in passes.ENTRIES)
_BATCH = "micro_batch"


@dataclass(frozen=True, slots=True)
class Use:
    """What one candidate needs of a device at its highest instant; per rank, or per node.

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
        others: which of ``_LASTING`` those numbers do change.
    """

    rows: dict[Device, list[int]]
    uses: dict[Device, Use]
    others: list[int]


class Sweep:
    """Every candidate plan of a job on one kind of node.

    Args:
        plans: one plan of each strategy, by name.
        cluster: the nodes; how many of them a candidate uses is its own.
    """

    def __init__(self, plans: Mapping[str, Plan], cluster: Cluster) -> None:
        self._family = Family(plans)
        base = self._family.base
        self.seq_len = base.seq_len
        self._ranks = base.ranks_per_node
        self._rates = rates_of(cluster, base.autocast_dtype or base.model_dtype, Case.EXPECTED)
        self._work = work_of(base.model)
        self._is_closed_form = is_closed_form(base)
        self._allocate = [_Allocate(entry, self._ranks) for entry in _LASTING]

    def values(self, strategy: str, **numbers: int) -> Values:
        """A candidate: a strategy with other numbers."""
        return self._family.values(strategy).with_numbers(**numbers)

    def plan(self, values: Values) -> Plan:
        """The candidate as a whole plan, for whoever wants to explain it."""
        return self._family.plan(values)

    def uses(self, values: Values) -> Mapping[Device, Use]:
        """The peak of every device, as ``sizing.size`` would give it."""
        family, lasting = self._family, self._lasting_of(values)
        rows = {Device.GPU: list(lasting.rows[Device.GPU])}
        for index in lasting.others:
            found = family.formula(index, values, self._allocate[index])
            if found is not None:
                device = found[0]
                _add(rows.setdefault(device, list(lasting.rows[device])), *found[1:])
        for place, size in family.formula("passes", values, _passes):
            rows[Device.GPU][place] += size
        found = {
            device: _highest(rows[device]) if device in rows else use
            for device, use in lasting.uses.items()
        }
        rooms, row = family.formula("rooms", values, _rooms), rows[Device.GPU]
        passes, step = (max(map(row.__getitem__, places)) for places in (_PASSES, _STEP))
        room = rooms.beside(passes, step, found[Device.GPU].num_bytes)
        error = family.formula("error", values, _error) if self._is_closed_form else 0
        found[Device.GPU] = replace(found[Device.GPU], room=room, error=error)
        return found

    def at_least(self, values: Values) -> Mapping[Device, Use]:
        """A lower bound of ``uses``, cheap: without forward, backward and what a batch changes."""
        return self._lasting_of(values).uses

    def _lasting_of(self, values: Values) -> _Sums:
        """Everything but forward and backward that the micro batch does not change."""
        found = self._family.formula("lasting", values, partial(self._lasting, values))
        return cast(_Sums, found)

    def _lasting(self, values: Values, view: View) -> _Sums:
        fixed = self._family.formula("fixed", values, partial(self._fixed, values), view.reads)
        return self._sums(fixed, values, view, frozenset({_BATCH}))

    def _fixed(self, values: Values, view: View) -> _Sums:
        """What none of the numbers changes: the strategy's own, with all it does not have."""
        nothing = {device: [0] * len(_MOMENTS) for device in Device}
        every = _Sums(nothing, {}, list(range(len(_LASTING))))
        return self._sums(every, values, view, frozenset((*NUMBERS, ACCUMULATES)))

    def _sums(self, known: _Sums, values: Values, view: View, numbers: frozenset[str]) -> _Sums:
        """``known`` and those of its others that do not read ``numbers``.

        Before its first number a formula reads the strategy alone, so that decides whether it
        reads any.
        """
        rows = {device: list(row) for device, row in known.rows.items()}
        others = []
        for index in known.others:
            reads: dict[str, None] = {}
            found = self._family.formula(index, values, self._allocate[index], reads)
            if not numbers.isdisjoint(reads):
                others.append(index)
            elif found is not None:
                _add(rows[found[0]], *found[1:])
            view.reads.update(dict.fromkeys(takewhile(lambda n: n not in numbers, reads)))
        return _Sums(rows, {device: _highest(row) for device, row in rows.items()}, others)

    def seconds(self, values: Values) -> float:
        """Predicted seconds of one optimizer step; 0 when no GPU was named."""
        if self._rates is None:
            return 0.0
        nodes = ceil_div(values.of["dp_world_size"], self._ranks)
        view = cast(Plan, self._family.view(values))
        return time_of(Step(plan=view, rates=self._rates, work=self._work, nodes=nodes)).seconds


def _rooms(view: Any) -> Rooms:
    return rooms_of(view)


def _error(view: Any) -> int:
    return closed_form_error(view).above


def _passes(view: Any) -> tuple[tuple[int, int], ...]:
    return tuple((_PLACE[moment], size) for moment, size in passes.totals(view).items())


class _Allocate:
    """One ledger entry as a formula: device, bytes (all ranks of a node off the GPU), moments."""

    __slots__ = ("_entry", "_ranks")

    def __init__(self, entry: Entry, ranks: int) -> None:
        self._entry = entry
        self._ranks = ranks

    def __call__(self, view: Any) -> tuple[Device, int, tuple[int, ...]] | None:
        found = evaluate((self._entry,), view, explain=False)
        if not found:
            return None
        allocation = found[0]
        size = allocation.num_bytes + allocation.rounding_bytes
        ranks = 1 if allocation.device is Device.GPU else self._ranks
        return allocation.device, ranks * size, tuple(_PLACE[m] for m in allocation.moments)


def _add(row: list[int], size: int, places: tuple[int, ...]) -> None:
    for place in places:
        row[place] += size


def _highest(row: list[int]) -> Use:
    size = max(row)
    return Use(size, _MOMENTS[row.index(size)])
