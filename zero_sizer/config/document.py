"""A DeepSpeed config as the user wrote it, with line numbers."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

_MISSING = object()


@dataclass(frozen=True, kw_only=True)
class Document:
    """The parsed config.

    Attributes:
        source: the path as the user gave it, or ``<dict>`` for a mapping.
        values: what DeepSpeed's own reader would hand to DeepSpeedConfig.
        lines: dotted key path -> line number (1-based) of the key; list items as ``key[0]``.
            Empty for a mapping.
    """

    source: str
    values: Mapping[str, Any]
    lines: Mapping[str, int] = field(default_factory=dict)

    def get(self, path: str, default: Any = None) -> Any:
        """Value at a dotted key path, or ``default``."""
        node: Any = self.values
        for part in path.split("."):
            node = node.get(part, _MISSING) if isinstance(node, Mapping) else _MISSING
            if node is _MISSING:
                return default
        return node

    def has(self, path: str) -> bool:
        """Whether the user wrote this key."""
        return self.get(path, _MISSING) is not _MISSING

    def line(self, path: str) -> int:
        """Line of a key, or 0."""
        return self.lines.get(path, 0)

    def where(self, path: str) -> str:
        """``file:line`` of a key, or just the file."""
        line = self.line(path)
        return f"{self.source}:{line}" if line else self.source

    def leaves(self) -> Iterator[tuple[str, Any]]:
        """Every (dotted path, value) whose value is not a mapping."""
        yield from _leaves("", self.values)


def _leaves(prefix: str, node: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        path = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(value, Mapping):
            yield from _leaves(path, value)
        else:
            yield path, value
