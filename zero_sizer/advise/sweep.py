"""Peaks and step times of many candidates of one strategy."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from zero_sizer import features
from zero_sizer.advise.view import Family, Values, View
from zero_sizer.features import passes
from zero_sizer.hardware.cluster import Cluster
from zero_sizer.ledger import Entry, evaluate
from zero_sizer.moments import Moment
from zero_sizer.plan import Device, Plan
from zero_sizer.speed import Case
from zero_sizer.speed.model import time_of
from zero_sizer.speed.rates import rates_of
from zero_sizer.speed.step import Step
from zero_sizer.speed.work import work_of
from zero_sizer.units import ceil_div

_MOMENTS = tuple(Moment)
_PLACE = {moment: index for index, moment in enumerate(_MOMENTS)}
_LASTING = tuple(entry for entry in features.ENTRIES if entry not in passes.ENTRIES)


@dataclass(frozen=True, slots=True)
class Use:
    """What one candidate needs of a device at its highest instant; per rank, or per node."""

    num_bytes: int
    moment: Moment


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

    def values(self, strategy: str, **numbers: int) -> Values:
        """A candidate: a strategy with other numbers."""
        return self._family.values(strategy).with_numbers(**numbers)

    def plan(self, values: Values) -> Plan:
        """The candidate as a whole plan, for whoever wants to explain it."""
        return self._family.plan(values)

    def uses(self, values: Values) -> Mapping[Device, Use]:
        """The peak of every device, as ``sizing.size`` would give it."""
        family = self._family
        gpu, others = family.formula("lasting", values, partial(self._lasting, values))
        row = list(gpu)
        for place, size in family.formula("passes", values, _passes):
            row[place] += size
        return {Device.GPU: _highest(row), **others}

    def _lasting(self, values: Values, view: View) -> tuple[list[int], Mapping[Device, Use]]:
        """Everything but forward and backward: the GPU's moments, and the others' highest."""
        sums = {device: [0] * len(_MOMENTS) for device in Device}
        for index, entry in enumerate(_LASTING):  # names may repeat under conditions
            found = self._family.formula(index, values, _Allocate(entry, self._ranks), view.reads)
            if found is None:
                continue
            device, size, places = found
            row = sums[device]
            for place in places:
                row[place] += size
        gpu = sums.pop(Device.GPU)
        return gpu, {device: _highest(row) for device, row in sums.items()}

    def seconds(self, values: Values) -> float:
        """Predicted seconds of one optimizer step; 0 when no GPU was named."""
        if self._rates is None:
            return 0.0
        nodes = ceil_div(values.of["dp_world_size"], self._ranks)
        view = cast(Plan, self._family.view(values))
        return time_of(Step(plan=view, rates=self._rates, work=self._work, nodes=nodes)).seconds


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


def _highest(row: list[int]) -> Use:
    size = max(row)
    return Use(size, _MOMENTS[row.index(size)])
