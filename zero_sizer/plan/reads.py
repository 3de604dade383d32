"""Which config keys a formula reads, so that an explanation is what was read."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from zero_sizer.plan.plan import Plan

_KEYS = {f.name: tuple(f.metadata.get("keys", ())) for f in fields(Plan)}


class Reads:
    """A Plan that notes which config keys were read through it, derived values included.

    Args:
        plan: the plan to read.
        memo: function -> its value and the keys it read; share it between entries of one plan.
    """

    def __init__(self, plan: Plan, memo: dict[Any, tuple[Any, dict[str, None]]]) -> None:
        self._plan = plan
        self._memo = memo
        self.keys: dict[str, None] = {}

    def __getattr__(self, name: str) -> Any:
        if name in _KEYS:
            self.keys.update(dict.fromkeys(_KEYS[name]))
            return getattr(self._plan, name)
        attribute: Any = getattr(Plan, name)
        if isinstance(attribute, property) and attribute.fget is not None:
            return attribute.fget(self)
        return attribute

    def derive(self, function: Callable[[Any], Any]) -> Any:
        """The function's value for this plan, with the keys that it read."""
        if function not in self._memo:
            nested = Reads(self._plan, self._memo)
            self._memo[function] = (function(nested), nested.keys)
        value, keys = self._memo[function]
        self.keys.update(keys)
        return value
