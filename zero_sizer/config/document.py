"""A DeepSpeed config as the user wrote it, with line numbers."""

from collections.abc import Iterator, Mapping
from dataclasses import field
from itertools import islice
from typing import Any

from zero_sizer.errors import InputError
from zero_sizer.util.files import read_bytes
from zero_sizer.util.records import dataclass

_MISSING = object()
MAX_KEYS = 4_096  # the largest known config has 150
MAX_BYTES = 1 << 18  # real configs have a few KiB; the largest known has 9 KiB


@dataclass(frozen=True, kw_only=True)
class Document:
    """The parsed config.

    Attributes:
        source: the path as the user gave it, or ``<dict>`` for a mapping.
        values: what DeepSpeed's own reader would hand to DeepSpeedConfig.
        lines: dotted key path -> line number (1-based) of the key; list items as ``key[0]``.
            Empty for a mapping.
        strict_json: the text is plain JSON. Hugging Face reads with ``json.load``, so comments and
            trailing commas that DeepSpeed accepts stop a Trainer or accelerate run.
    """

    source: str
    values: Mapping[str, Any]
    lines: Mapping[str, int] = field(default_factory=dict)
    strict_json: bool = True

    def get(self, path: str, default: Any = None) -> Any:
        """Value at a dotted key path, or ``default``."""
        node: Any = self.values
        for part in path.split("."):
            node = node.get(part, _MISSING) if isinstance(node, Mapping) else _MISSING
            if node is _MISSING:
                return default
        return node

    def has(self, path: str) -> bool:
        """True if the user wrote this key."""
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


def from_mapping(
    mapping: Mapping[str, Any],
    source: str = "<dict>",
    lines: Mapping[str, int] | None = None,
) -> Document:
    """A document from a mapping (a dict in a script, the ``deepspeed:`` part of a job YAML).

    Args:
        mapping: the config.
        source: what to call it in messages.
        lines: dotted key path -> line in ``source``, where known.

    Raises:
        InputError: not a mapping, or a key that is not a string.
    """
    if not isinstance(mapping, Mapping):
        raise InputError("a DeepSpeed config must be an object of keys", where=source)
    try:
        values = _plain(mapping, source)
    except RecursionError:
        raise InputError("nested too deeply", where=source) from None
    _require_few(values, source)
    return Document(source=source, values=values, lines=dict(lines or {}))


def load(path: str) -> Document:
    """Read a DeepSpeed config file (JSON or HJSON) exactly as DeepSpeed does.

    Args:
        path: file name as the user gave it.

    Raises:
        InputError: it cannot be read, or DeepSpeed's own reader would refuse it; ``where`` names
            file and line.
    """
    return parse(read_bytes(path, MAX_BYTES, "a DeepSpeed config"), path)


def parse(raw: bytes, path: str) -> Document:
    """A document from the bytes of a file, or of standard input.

    Args:
        raw: what stands in it.
        path: what to call it in messages.

    Raises:
        InputError: DeepSpeed's own reader would refuse it.
    """
    text = _text(raw, path)
    values, lines = _decode(path, text)
    if not isinstance(values, dict):
        kind = _JSON_NAMES.get(type(values), "a value")
        raise InputError(
            f"holds {kind}, but a DeepSpeed config must be an object of keys", where=path
        )
    _require_few(values, path)
    return Document(source=path, values=values, lines=lines, strict_json=_is_strict(text))


def _require_few(values: Mapping[str, Any], source: str) -> None:
    count = sum(1 for _ in islice(_leaves("", values), MAX_KEYS + 1))
    if count > MAX_KEYS:
        raise InputError(f"holds more than {MAX_KEYS:,} keys", where=source)


_JSON_NAMES = {list: "a list", str: "a string", int: "a number", float: "a number", bool: "a bool"}


def _text(raw: bytes, path: str) -> str:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError("is not text (not valid UTF-8)", where=f"{path}:{line}") from None
    if "\0" in text:
        raise InputError("is not text (holds NUL bytes)", where=path)
    if not text.strip("\ufeff \t\r\n"):
        raise InputError("is empty", where=path)
    return text.replace("\r\n", "\n").replace("\r", "\n")  # as Python's text mode reads it


def _decode(path: str, text: str) -> tuple[Any, dict[str, int]]:
    from zero_sizer.config import reader

    try:
        return reader.decode(text)
    except RecursionError:
        raise InputError("is nested too deeply", where=path) from None
    except reader.DuplicateKeysError as error:
        where = f"{path}:{reader.line_at(text, error.offset)}"
        names = ", ".join(repr(key) for key in error.keys)
        raise InputError(
            f"holds a key twice: {names}; DeepSpeed raises ValueError",
            remedy="keep one of them",
            where=where,
        ) from None
    except OverflowError:
        raise InputError("holds a number too large for any use", where=path) from None
    except IndexError:
        raise InputError("ends inside a comment or a string", where=path) from None
    except ValueError as error:
        raise _broken(path, error) from None


def _broken(path: str, error: ValueError) -> InputError:
    line = getattr(error, "lineno", 0)
    message = str(getattr(error, "msg", error)).splitlines()[0]
    where = f"{path}:{line}" if line else path
    column = f" (column {getattr(error, 'colno', 0)})" if line else ""
    return InputError(f"is not valid JSON or HJSON: {message}{column}", where=where)


def _is_strict(text: str) -> bool:
    import json

    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _plain(node: Any, source: str) -> Any:
    if isinstance(node, Mapping):
        for key in node:
            if not isinstance(key, str):
                raise InputError(f"key {key!r} is not a string", where=source)
        return {key: _plain(value, source) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_plain(value, source) for value in node]
    if isinstance(node, int | float):
        _require_sensible(node, source)
    return node


def _require_sensible(value: float, source: str) -> None:
    from zero_sizer.config.reader import require_sensible

    try:
        require_sensible(value)
    except OverflowError:
        raise InputError("holds a number too large for any use", where=source) from None
