"""Which config keys a formula reads, so that an explanation is what was read."""

from dataclasses import fields
from functools import cached_property
from types import FunctionType
from typing import Any

from zero_sizer.plan.plan import Plan

_KEYS = {f.name: tuple(f.metadata.get("keys", ())) for f in fields(Plan)}


class Reads:
    """A Plan that notes which config keys were read through it, nested properties included.

    Args:
        plan: the plan to read.
        memo: property -> its value and the keys it read; share it between entries of one plan.
    """

    def __init__(self, plan: Plan, memo: dict[str, tuple[Any, dict[str, None]]]) -> None:
        self._plan = plan
        self._memo = memo
        self.keys: dict[str, None] = {}

    def __getattr__(self, name: str) -> Any:
        if name in _KEYS:
            self.keys.update(dict.fromkeys(_KEYS[name]))
            return getattr(self._plan, name)
        attribute: Any = getattr(Plan, name)
        if isinstance(attribute, cached_property):
            if name not in self._memo:
                nested = Reads(self._plan, self._memo)
                self._memo[name] = (attribute.func(nested), nested.keys)
            value, keys = self._memo[name]
            self.keys.update(keys)
            return value
        if isinstance(attribute, FunctionType):
            return attribute.__get__(self)
        return getattr(self._plan, name)
