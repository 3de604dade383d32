"""YAML into plain values with the line of every key; nothing a file says is executed."""

import re
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

from zero_sizer.config.document import Document
from zero_sizer.config.reader import require_sensible
from zero_sizer.errors import InputError
from zero_sizer.util.files import read_bytes

if TYPE_CHECKING:
    import yaml

_MAX_BYTES = 2**18  # PyYAML reads some 100 KiB a second; a job has one
_MAX_DEPTH = 64
_MAX_NODES = 100_000  # aliases multiply: a small file can stand for billions of nodes
_TAG = "tag:yaml.org,2002:"
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9_]*)")
# YAML 1.1 reads 5e8 as text, 010 as 8 and 1:30 as 90. DeepSpeed users mean JSON's numbers.
_FLOAT = re.compile(r"[-+]?(\d[\d_]*\.\d*|\.\d+|\d[\d_]*(?=[eE]))([eE][-+]?\d+)?")
_SPECIAL = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


def load(path: str) -> Document:
    """The mapping in a YAML file, with lines.

    Numbers are JSON's: ``5e8`` is 500000000.0, and a quoted ``"5e8"`` stays text.

    Raises:
        InputError: unreadable, not YAML, not a mapping, a key twice, a tag that builds objects.
    """
    import yaml

    text = _text(path)
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise _not_yaml(path, error) from None
    except RecursionError:
        raise InputError("nested too deeply", where=path) from None
    if not isinstance(root, yaml.MappingNode):
        raise InputError("the file holds no mapping of keys to values", where=path)
    walk = _Walk(path)
    return Document(source=path, values=walk.mapping(root, "", 0), lines=walk.lines)


class _Walk:
    """Turns composed nodes into values, noting the line of each key."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.lines: dict[str, int] = {}
        self.num_nodes = 0

    def value(self, node: "yaml.Node", key: str, depth: int) -> Any:
        import yaml

        self.num_nodes += 1
        if depth > _MAX_DEPTH or self.num_nodes > _MAX_NODES:
            raise self._error(node, "nested too deeply" if depth > _MAX_DEPTH else "too large")
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, key, depth)
        if isinstance(node, yaml.SequenceNode):
            return self._sequence(node, key, depth)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        raise self._error(node, "this kind of value is not read")

    def mapping(self, node: "yaml.MappingNode", key: str, depth: int) -> dict[str, Any]:
        self._expect_tag(node, "map")
        values: dict[str, Any] = {}
        for name_node, value_node in node.value:
            name = self._name(name_node)
            if name in values:
                raise self._error(name_node, f"the key {name[:60]!r} stands here twice")
            path = f"{key}.{name}" if key else name
            self.lines.setdefault(path, name_node.start_mark.line + 1)
            values[name] = self.value(value_node, path, depth + 1)
        return values

    def _sequence(self, node: "yaml.SequenceNode", key: str, depth: int) -> list[Any]:
        self._expect_tag(node, "seq")
        items = []
        for index, item in enumerate(node.value):
            path = f"{key}[{index}]"
            self.lines.setdefault(path, item.start_mark.line + 1)
            items.append(self.value(item, path, depth + 1))
        return items

    def _name(self, node: "yaml.Node") -> str:
        import yaml

        if not isinstance(node, yaml.ScalarNode):
            raise self._error(node, "a key must be a word")
        if node.tag == _TAG + "merge":
            raise self._error(node, "merge keys (<<) are not read; write the keys out")
        return self._word(node)

    def _scalar(self, node: "yaml.ScalarNode") -> Hashable:
        kind = node.tag.removeprefix(_TAG)
        text = self._word(node)
        if kind in ("int", "float", "str") and not node.style:
            return self._number(node, text)
        if kind == "bool":
            return text.lower() in ("yes", "true", "on")
        if kind == "null":
            return None
        if kind in ("str", "timestamp", "value"):
            return text
        raise self._error(node, f"the tag {node.tag[:60]!r} is not read; write plain values")

    def _word(self, node: "yaml.ScalarNode") -> str:
        """The text; JSON writes characters beyond U+FFFF as an escaped pair, YAML as one."""
        text = str(node.value)
        try:
            return (
                text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16")
            )
        except UnicodeDecodeError:
            raise self._error(node, "half of an escaped character") from None

    def _number(self, node: "yaml.Node", text: str) -> int | float | str:
        number: int | float | str = text
        try:
            if _INTEGER.fullmatch(text):
                number = int(text)
            elif _FLOAT.fullmatch(text):
                number = float(text.replace("_", ""))
            elif _SPECIAL.fullmatch(text):
                number = float(text.replace(".", ""))
            require_sensible(number)
        except (ValueError, OverflowError):  # Python reads no more than 4300 digits
            raise self._error(node, f"{text[:20]}... is no number anyone needs") from None
        return number

    def _expect_tag(self, node: "yaml.Node", kind: str) -> None:
        if node.tag != _TAG + kind:
            raise self._error(node, f"the tag {node.tag[:60]!r} is not read; write plain values")

    def _error(self, node: "yaml.Node", message: str) -> InputError:
        return InputError(message, where=f"{self.path}:{node.start_mark.line + 1}")


def _text(path: str) -> str:
    data = read_bytes(path, _MAX_BYTES, "a job file")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError("not a text file", where=path) from None


def _not_yaml(path: str, error: "yaml.YAMLError") -> InputError:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "unreadable"
    where = f"{path}:{mark.line + 1}" if mark is not None else path
    return InputError(f"not YAML: {problem}", where=where)
