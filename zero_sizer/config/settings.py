"""A config with every known key resolved: the user's value, a filled "auto", or the default.

Every section path (``optimizer``, ``zero_optimization.zenflow``, ...) is a Setting too: True where
DeepSpeed holds that section because the user wrote it, False where it is absent or null. A value of
None under an "auto" origin means that nothing the user stated decides it; a finding says so.
"""

from collections.abc import Mapping
from typing import Any

from zero_sizer.util.records import dataclass

MODELS_DEEPSPEED = "0.19.8"
"""Release of DeepSpeed that the figures are those of."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One resolved key: its value and where it came from.

    Attributes:
        value: as DeepSpeed 0.19.8 would hold it after parsing.
        origin: e.g. ``ds.json:12``, ``DeepSpeed's default`` or ``"auto" (ds.json:7) -> ...``.
        is_default: the user said nothing about it.
    """

    value: Any
    origin: str
    is_default: bool = False


@dataclass(frozen=True)
class Settings:
    """Dotted key path -> Setting, for every key of every known section.

    Aliases are folded to the JSON spelling (``zero_optimization.stage3_prefetch_bucket_size``,
    ``bf16.enabled``) and deprecated keys to the ones that replace them.
    """

    by_key: Mapping[str, Setting]

    def __contains__(self, key: object) -> bool:
        return key in self.by_key

    def __getitem__(self, key: str) -> Any:
        return self.by_key[key].value

    def origin(self, key: str) -> str:
        """Where the value of ``key`` comes from."""
        return self.by_key[key].origin

    def is_default(self, key: str) -> bool:
        """True if the user left ``key`` out."""
        return self.by_key[key].is_default

    def under(self, section: str) -> dict[str, Any]:
        """Values of everything below ``section`` by the rest of the path (``optimizer.params``)."""
        head = f"{section}."
        return {
            path.removeprefix(head): setting.value
            for path, setting in self.by_key.items()
            if path.startswith(head)
        }
