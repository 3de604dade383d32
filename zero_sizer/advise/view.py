"""Many plans that differ in some fields: formulas are evaluated once per values they read.

A ``View`` looks like a ``Plan`` whose varied fields come from a mapping, and notes which of them a
formula reads. A formula that reads the same values gives the same result, so results are kept
under the values read: thousands of candidates cost little more than the distinct parts.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any

from zero_sizer.plan.plan import Plan
from zero_sizer.util.records import dataclass

NUMBERS = (
    "rank",
    "dp_world_size",
    "micro_batch",
    "grad_accum",
    "checkpointing",
    "reduce_bucket_size",
    "prefetch_bucket_size",
    "max_live_parameters",
    "max_reuse_distance",
    "persistence_threshold",
    "sub_group_size",
    "optimizer_pinned",
    "optimizer_ratio",
    "param_pinned",
    "param_buffer_size",
)
"""Fields that vary within a strategy: plain numbers, nothing else in a plan follows from them."""
ACCUMULATES = "accumulates"
"""All that memory knows of ``grad_accum``."""


@dataclass(frozen=True, slots=True)
class Values:
    """The varied fields of one plan.

    Attributes:
        of: field -> value.
        tokens: field -> what stands for the value when results are looked up.
    """

    of: Mapping[str, Any]
    tokens: Mapping[str, Any]

    def with_numbers(self, **numbers: float) -> "Values":
        """Copies the values with other numbers (of ``NUMBERS``)."""
        if "grad_accum" in numbers:
            stated = SimpleNamespace(grad_accum=numbers["grad_accum"])
            numbers[ACCUMULATES] = getattr(Plan, ACCUMULATES).fget(stated)
        return Values({**self.of, **numbers}, {**self.tokens, **numbers})


class _Results:
    """Results of one formula by the varied values that it read, in the order it read them."""

    def __init__(self) -> None:
        self._root: list[Any] = []  # [] unknown, [name, {token: node}] or [None, result]

    def find(self, values: Values, reads: dict[str, None]) -> list[Any]:
        """The node of these values: ``[None, result]``, or ``[]`` where nothing is known yet."""
        node = self._root
        tokens = values.tokens
        while node and node[0] is not None:
            name, branches = node
            reads[name] = None
            node = branches.setdefault(tokens[name], [])
        return node

    def add(self, values: Values, reads: Mapping[str, None], result: Any) -> None:
        """Keep ``result`` under what was read to get it."""
        node = self._root
        for name in reads:
            if not node:
                node.extend([name, {}])
            node = node[1].setdefault(values.tokens[name], [])
        node[:] = [None, result]


class PlanFamily:
    """Plans of one job; whatever field differs between any two of them is varied.

    Args:
        plans: one plan of each strategy, by name.
    """

    def __init__(self, plans: Mapping[str, Plan]) -> None:
        self.base = next(iter(plans.values()))
        names = [field.name for field in fields(Plan)]
        self.varied = frozenset(
            name for name in names if name in NUMBERS or not _same(plans.values(), name)
        ) | {ACCUMULATES}
        self._distinct: dict[str, list[Any]] = {name: [] for name in self.varied}
        self._values = {name: self._values_of(plan) for name, plan in plans.items()}
        self._formulas: dict[Any, _Results] = {}

    def values(self, strategy: str) -> Values:
        """The varied fields of a strategy's plan."""
        return self._values[strategy]

    def _values_of(self, plan: Plan) -> Values:
        of = {name: getattr(plan, name) for name in self.varied}
        return Values(of, {name: self._token(name, value) for name, value in of.items()})

    def _token(self, name: str, value: Any) -> Any:
        """The number itself, or the place of an equal value among those met so far."""
        if name in NUMBERS or name == ACCUMULATES:
            return value
        met = self._distinct[name]
        if value not in met:
            met.append(value)
        return met.index(value)

    def plan(self, values: Values) -> Plan:
        """The whole plan with these values."""
        return replace(self.base, **{n: v for n, v in values.of.items() if n != ACCUMULATES})

    def view(self, values: Values) -> "View":
        """The plan with these values."""
        return View(self, values)

    def formula(
        self,
        key: Any,
        values: Values,
        compute: Callable[["View"], Any],
        reads: dict[str, None] | None = None,
    ) -> Any:
        """``compute`` of the view with these values, where ``key`` names the formula.

        A formula made of others hands them its own view's ``reads``.
        """
        return self._kept(self._formulas, key, values, {} if reads is None else reads, compute)

    def known(self, key: Any, values: Values) -> bool:
        """True if a formula's result for these values is kept."""
        return key in self._formulas and bool(self._formulas[key].find(values, {}))

    def _kept(
        self,
        kept: dict[Any, _Results],
        key: Any,
        values: Values,
        reads: dict[str, None],
        compute: Callable[["View"], Any],
    ) -> Any:
        results = kept.get(key)
        if results is None:
            results = kept[key] = _Results()
        node = results.find(values, reads)
        if node:
            return node[1]
        view = View(self, values)
        result = compute(view)
        results.add(values, view.reads, result)
        reads.update(view.reads)
        return result


def _same(plans: Iterable[Plan], name: str) -> bool:
    found = [getattr(plan, name) for plan in plans]
    return all(value == found[0] for value in found[1:])


class View:
    """A plan for formulas; ``reads`` collects the varied fields that they touch."""

    __slots__ = ("_family", "_values", "reads")

    def __init__(self, family: PlanFamily, values: Values) -> None:
        self._family = family
        self._values = values
        self.reads: dict[str, None] = {}

    def __getattr__(self, name: str) -> Any:
        if name in self._family.varied:
            self.reads[name] = None
            return self._values.of[name]
        attribute = getattr(Plan, name, None)
        if isinstance(attribute, property) and attribute.fget is not None:
            return attribute.fget(self)
        return getattr(self._family.base, name)

    def derive(self, function: Callable[[Any], Any]) -> Any:
        """The function's value for a plan with these values."""
        return self._family.formula(function, self._values, function, self.reads)
