"""Many plans that differ in some fields: formulas are evaluated once per values they read.

A ``View`` looks like a ``Plan`` whose varied fields come from a mapping, and notes which of them a
formula reads. A formula that reads the same values gives the same result, so results are kept
under the values read: thousands of candidates cost little more than the distinct parts.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from operator import itemgetter
from types import SimpleNamespace
from typing import Any, NamedTuple

from zero_sizer.plan.plan import Plan

HOW = "checkpointing_how"
NUMBERS = (
    "rank",
    "dp_world_size",
    "micro_batch",
    "grad_accum",
    "checkpointing",
    HOW,
    "overlap_comm",
    "reduce_bucket_size",
    "prefetch_bucket_size",
    "max_live_parameters",
    "max_reuse_distance",
    "persistence_threshold",
    "sub_group_size",
    "optimizer_pinned",
    "optimizer_ratio",
    "optimizer_buffer_count",
    "param_pinned",
    "param_buffer_count",
    "param_buffer_size",
)
"""Fields that vary within a strategy: plain numbers, nothing else in a plan follows from them.

``HOW`` varies in its ``every`` alone, which stands for it."""
ACCUMULATES = "accumulates"
"""All that memory knows of ``grad_accum``."""
_VARYING = frozenset((*NUMBERS, ACCUMULATES))


Noted = tuple[Any, dict[str, None]]
"""A result, and what was read to get it: of equal reads the same object, which must not change."""


class Values:
    """The varied fields of one plan; they do not change.

    Attributes:
        of: field -> value.
        tokens: field -> what stands for the value when results are looked up.
        strategy: number of the strategy, whose other fields are all the same.
        derived: functions of the plan that were asked for -> value, and what was read to get it.
    """

    __slots__ = ("derived", "of", "strategy", "tokens")

    def __init__(self, of: Mapping[str, Any], tokens: Mapping[str, Any], strategy: int) -> None:
        self.of = of
        self.tokens = tokens
        self.strategy = strategy
        self.derived: dict[Callable[[Any], Any], Noted] = {}

    def with_numbers(self, **numbers: Any) -> "Values":
        """Copies the values with other numbers (of ``NUMBERS``)."""
        if "grad_accum" in numbers:
            stated = SimpleNamespace(grad_accum=numbers["grad_accum"])
            numbers[ACCUMULATES] = getattr(Plan, ACCUMULATES).fget(stated)
        of, tokens = {**self.of, **numbers}, {**self.tokens, **numbers}
        if HOW in numbers:
            tokens[HOW] = of[HOW].every
        return Values(of, tokens, self.strategy)

    def on_rank(self, rank: int) -> "Values":
        """The values on another rank."""
        return self if self.of["rank"] == rank else self.with_numbers(rank=rank)


_UNKNOWN = object()


_KeyOf = Callable[[Mapping[str, Any]], Any]


class _OfReads(NamedTuple):
    """Results for which the same fields were read.

    Attributes:
        names: the fields, in the order in which they were first read.
        strategy_of: their tokens that are a strategy's.
        key_of: their tokens that vary within one.
        tables: of each strategy's tokens the results, by the others.
    """

    names: dict[str, None]
    strategy_of: _KeyOf
    key_of: _KeyOf
    tables: dict[Any, dict[Any, Any]]

    @classmethod
    def of(cls, names: Mapping[str, None]) -> "_OfReads":
        """No results yet."""
        varying = [name for name in names if name in _VARYING]
        others = [name for name in names if name not in _VARYING]
        return cls(dict(names), _getter(others), _getter(varying), {})


def _getter(names: Sequence[str]) -> _KeyOf:
    return itemgetter(*names) if names else _nothing


def _nothing(tokens: Mapping[str, Any]) -> None:
    """The key where nothing is compared."""


class _Results:
    """Results of one formula, by the varied values that it read.

    What it reads may depend on what it has read: each set of fields has results of its own. A
    result whose fields all have equal values is the one, whichever set they are. Within a strategy
    few sets occur, and strategies that are alike in the fields of a set share its results.
    """

    __slots__ = ("_of_strategy", "_sets", "_tables")

    def __init__(self) -> None:
        self._sets: dict[tuple[str, ...], _OfReads] = {}
        self._tables = 0  # how many there are
        self._of_strategy: dict[int, tuple[int, list[tuple[_KeyOf, Any, dict[str, None]]]]] = {}

    def find(self, values: Values) -> Noted | None:
        """The result for these values and what was read to get it; None where it is not known."""
        tokens = values.tokens
        known = self._of_strategy.get(values.strategy)
        if known is None or known[0] != self._tables:
            known = self._link(values)
        for key_of, results, names in known[1]:
            found = results.get(key_of(tokens), _UNKNOWN)
            if found is not _UNKNOWN:
                return found, names
        return None

    def _link(self, values: Values) -> tuple[int, list[tuple[_KeyOf, Any, dict[str, None]]]]:
        """The tables that may have results of a strategy."""
        rows = []
        for one in self._sets.values():
            results = one.tables.get(one.strategy_of(values.tokens))
            if results is not None:
                rows.append((one.key_of, results, one.names))
        found = self._of_strategy[values.strategy] = self._tables, rows
        return found

    def add(self, values: Values, reads: dict[str, None], result: Any) -> Noted:
        """Keep ``result`` under what was read to get it."""
        names = tuple(reads)
        kept = self._sets.get(names)
        if kept is None:
            kept = self._sets[names] = _OfReads.of(reads)
        table = kept.tables.get(kept.strategy_of(values.tokens))
        if table is None:
            table = kept.tables[kept.strategy_of(values.tokens)] = {}
            self._tables += 1
        table[kept.key_of(values.tokens)] = result
        return result, kept.names


class PlanFamily:
    """Plans of one job; whatever field differs between any two of them is varied.

    Args:
        plans: one plan of each strategy, by name.

    Attributes:
        constants: values of functions that read no varied field.
    """

    def __init__(self, plans: Mapping[str, Plan]) -> None:
        self.base = next(iter(plans.values()))
        names = [field.name for field in fields(Plan)]
        self.varied = frozenset(
            name for name in names if name in NUMBERS or not _same(plans.values(), name)
        ) | {ACCUMULATES}
        self._distinct: dict[str, list[Any]] = {name: [] for name in self.varied}
        self._values = {
            name: self._values_of(plan, number) for number, (name, plan) in enumerate(plans.items())
        }
        self._formulas: dict[Any, _Results] = {}
        self._view = _view_type(self.base, self.varied)
        self.constants: dict[Callable[[Any], Any], Any] = {}

    def values(self, strategy: str) -> Values:
        """The varied fields of a strategy's plan."""
        return self._values[strategy]

    def _values_of(self, plan: Plan, strategy: int) -> Values:
        of = {name: getattr(plan, name) for name in self.varied}
        tokens = {name: self._token(name, value) for name, value in of.items()}
        return Values(of, tokens, strategy)

    def _token(self, name: str, value: Any) -> Any:
        """The number itself, or the place of an equal value among those met so far."""
        if name == HOW:
            return value.every
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
        return self._view(self, values)

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
        found, read = self.noted(key, values, compute)
        if reads is not None:
            reads.update(read)
        return found

    def noted(self, key: Any, values: Values, compute: Callable[["View"], Any]) -> Noted:
        """A formula's result as ``formula`` gives it, with what it read."""
        results = self._formulas.get(key)
        if results is None:
            results = self._formulas[key] = _Results()
        found = results.find(values)
        if found is None:
            view = self._view(self, values)
            result = compute(view)
            found = results.add(values, view.reads, result)
        return found

    def evaluated(self, key: Any, values: Values, compute: Callable[["View"], Any]) -> Noted:
        """``noted`` that keeps nothing: see ``keep``."""
        results = self._formulas.get(key)
        found = results.find(values) if results is not None else None
        if found is None:
            view = self._view(self, values)
            found = compute(view), view.reads
        return found

    def keep(self, key: Any, values: Values, found: Noted) -> Noted:
        """Keep what ``evaluated`` gave."""
        results = self._formulas.get(key)
        if results is None:
            results = self._formulas[key] = _Results()
        return results.find(values) or results.add(values, found[1], found[0])

    def known(self, key: Any, values: Values) -> bool:
        """True if a formula's result for these values is kept."""
        return key in self._formulas and self._formulas[key].find(values) is not None


def _same(plans: Iterable[Plan], name: str) -> bool:
    found = [getattr(plan, name) for plan in plans]
    return all(value == found[0] for value in found[1:])


class View:
    """A plan for formulas; ``reads`` collects the varied fields that they touch.

    What does not vary are attributes of a class that each family makes of its own; a field that
    varies becomes one of the view's when it is first read.
    """

    def __init__(self, family: PlanFamily, values: Values) -> None:
        self._family = family
        self._values = values
        self.reads: dict[str, None] = {}

    def __getattr__(self, name: str) -> Any:
        varied = self._values.of
        if name not in varied:
            return getattr(self._family.base, name)
        self.reads[name] = None
        found = self.__dict__[name] = varied[name]
        return found

    def derive(self, function: Callable[[Any], Any]) -> Any:
        """The function's value for a plan with these values."""
        constants = self._family.constants
        if function in constants:
            return constants[function]
        known = self._values.derived.get(function)
        if known is None:
            known = self._family.noted(function, self._values, function)
            self._values.derived[function] = known
        found, reads = known
        if reads:
            self.reads.update(reads)
        else:
            constants[function] = found
        return found


def _view_type(base: Plan, varied: frozenset[str]) -> type[View]:
    """Views of plans that differ from ``base`` in ``varied`` alone."""
    fields_of = {f.name: getattr(base, f.name) for f in fields(Plan) if f.name not in varied}
    properties = {
        name: attribute
        for name, attribute in vars(Plan).items()
        if isinstance(attribute, property) and name not in varied
    }
    return type("View", (View,), {**fields_of, **properties})
