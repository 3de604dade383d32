"""HJSON with positions: the values are the hjson library's, the line numbers are ours.

DeepSpeed reads its config with hjson (deepspeed/runtime/config.py, ``DeepSpeedConfig.__init__``),
so the library's own pure-Python decoder does the parsing here too. Two of its hooks are wrapped to
note where each key and list item starts.
"""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

Scan = Callable[[str, int], tuple[Any, int]]


class DuplicateKeysError(ValueError):
    """An object holds a key twice; DeepSpeed refuses it with a ValueError."""

    def __init__(self, keys: Sequence[str], offset: int) -> None:
        self.keys = tuple(keys)
        self.offset = offset
        super().__init__(f"Duplicate keys in DeepSpeed config: {list(keys)}")


class _Recorder:
    """Wraps hjson's object and array parsers; remembers the offset of every member."""

    def __init__(self, decoder: Any) -> None:
        from hjson.decoder import getNext

        self._next = getNext
        self._objects, self._arrays = decoder.parse_object, decoder.parse_array
        self.offsets: dict[int, list[int]] = {}
        self._alive: list[Any] = []  # keeps ids unique until the walk

    def _following(self, scan: Scan, start: int, offsets: list[int]) -> Scan:
        """``scan`` that first notes where the member beginning after ``start`` stands."""
        end = start

        def scan_member(text: str, index: int) -> tuple[Any, int]:
            nonlocal end
            char, first = self._next(text, end)
            if char == ",":
                _, first = self._next(text, first + 1)
            offsets.append(first)
            value, end = scan(text, index)
            return value, end

        return scan_member

    def parse_object(self, state: tuple[str, int], *args: Any) -> tuple[Any, int]:
        """JSONObject of hjson, with offsets and refused duplicates."""
        encoding, strict, scan, _, _, memo, *braceless = args
        offsets: list[int] = []
        member = self._following(scan, state[1], offsets)
        pairs, end = self._objects(state, encoding, strict, member, None, list, memo, *braceless)
        counts = Counter(key for key, _ in pairs)
        if len(counts) != len(pairs):
            twice = [key for key, count in counts.items() if count > 1]
            places = [at for (key, _), at in zip(pairs, offsets, strict=True) if key == twice[0]]
            raise DuplicateKeysError(twice, places[1])
        return self._keep(dict(pairs), offsets), end

    def parse_array(self, state: tuple[str, int], scan: Scan) -> tuple[Any, int]:
        """JSONArray of hjson, with offsets."""
        offsets: list[int] = []
        items, end = self._arrays(state, self._following(scan, state[1], offsets))
        return self._keep(items, offsets), end

    def _keep(self, node: Any, offsets: list[int]) -> Any:
        self.offsets[id(node)] = offsets
        self._alive.append(node)
        return node


TOO_LARGE = 2.0**100  # beyond any size: products with it would not fit a float


def decode(text: str) -> tuple[Any, dict[str, int]]:
    """Decode HJSON as DeepSpeed does.

    Args:
        text: the whole file.

    Returns:
        The value, and dotted key path -> 1-based line (list items as ``key[0]``).

    Raises:
        DuplicateKeysError: a key stands twice in one object.
        hjson.HjsonDecodeError: broken HJSON; has ``lineno``.
        RecursionError, IndexError, OverflowError, ValueError: what the library lets through for
            input nested too deeply, unclosed comments and absurd numbers.
    """
    from hjson.decoder import HjsonDecoder, make_scanner

    decoder = HjsonDecoder()
    recorder = _Recorder(decoder)
    decoder.parse_object, decoder.parse_array = recorder.parse_object, recorder.parse_array
    decoder.scan_once, decoder.scan_object_once = make_scanner(decoder)
    value = decoder.decode(text)
    newlines = [at for at, char in enumerate(text) if char == "\n"]
    lines: dict[str, int] = {}
    _walk(value, "", recorder.offsets, lambda at: bisect_right(newlines, at - 1) + 1, lines)
    return value, lines


def require_sensible(value: Any) -> None:
    """Raises OverflowError for a number that measures nothing; infinity and NaN are no numbers."""
    if isinstance(value, int | float) and TOO_LARGE <= abs(value) < math.inf:
        raise OverflowError


def line_at(text: str, offset: int) -> int:
    """1-based line of ``offset`` in ``text``."""
    return text.count("\n", 0, offset) + 1


def _walk(
    node: Any,
    path: str,
    offsets: dict[int, list[int]],
    line: Callable[[int], int],
    lines: dict[str, int],
) -> None:
    if isinstance(node, dict):
        members = [(f"{path}.{key}" if path else key, value) for key, value in node.items()]
    elif isinstance(node, list):
        members = [(f"{path}[{index}]", value) for index, value in enumerate(node)]
    else:
        require_sensible(node)
        return
    for (name, value), offset in zip(members, offsets.get(id(node), ()), strict=False):
        lines[name] = line(offset)
        _walk(value, name, offsets, line, lines)
