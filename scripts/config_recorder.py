"""A dict that notes which keys a config parser asks for, and with which defaults."""

from collections.abc import Iterator
from typing import Any

ABSENT = object()  # asked for without naming a default
PROBE = "zero_sizer_probe"  # a key put in to recognise a section; never noted


class Log:
    """What one parser run asked for."""

    def __init__(self) -> None:
        self.reads: dict[str, dict[str, Any]] = {}
        self.open: set[str] = set()
        self.models: dict[str, type] = {}

    def read(self, section: str, key: object, default: Any) -> None:
        """Note that ``key`` of ``section`` was asked for."""
        if isinstance(key, str) and not key.startswith(PROBE):
            keys = self.reads.setdefault(section, {})
            if keys.get(key, ABSENT) is ABSENT:
                keys[key] = default


class Keys:
    """``dict.keys()`` that notes membership tests."""

    def __init__(self, owner: "Recorder") -> None:
        self._owner = owner

    def __contains__(self, key: object) -> bool:
        return key in self._owner

    def __iter__(self) -> Iterator[str]:
        return iter(dict.keys(self._owner))


class Recorder(dict):
    """A config section that notes what is asked of it."""

    def __init__(self, values: dict[str, Any], path: str, log: Log) -> None:
        super().__init__(values)
        self.path, self.log = path, log

    def get(self, key: Any, default: Any = None) -> Any:
        """Note the key and its default."""
        self.log.read(self.path, key, default)
        return super().get(key, default)

    def pop(self, key: Any, *default: Any) -> Any:
        """Note the key."""
        self.log.read(self.path, key, ABSENT)
        return super().pop(key, *default)

    def __getitem__(self, key: Any) -> Any:
        self.log.read(self.path, key, ABSENT)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self.log.read(self.path, key, ABSENT)
        return super().__contains__(key)

    def keys(self) -> Any:
        """A view that notes membership tests."""
        return Keys(self)

    def items(self) -> Any:
        """Note that everything is handed on."""
        self._opened()
        return super().items()

    def __copy__(self) -> "Recorder":
        self._opened()
        return Recorder(dict(self), self.path, self.log)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Recorder":
        return self.__copy__()

    def _opened(self) -> None:
        """Copied or iterated: whatever stands in it goes on to other code."""
        if self.path:
            self.log.open.add(self.path)
