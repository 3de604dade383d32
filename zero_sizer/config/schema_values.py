"""JSON Schema of one key's values: what DeepSpeed's parser takes, lenient as it is.

``values.convert`` is the rule; a test holds the two together, value by value.
"""

import operator
import re
from collections.abc import Callable, Collection
from typing import Any

from zero_sizer.config.keys import Key

Schema = dict[str, Any]

AUTO: Schema = {"const": "auto"}
_INT_TEXT = r"^\s*[+-]?[0-9]+(?:_[0-9]+)*(?:\.0+)?\s*$"
_FLOAT_TEXT = (
    r"^\s*[+-]?(?:(?:[0-9_]+\.?[0-9_]*|\.[0-9_]+)(?:[eE][+-]?[0-9]+)?"
    r"|[iI][nN][fF](?:[iI][nN][iI][tT][yY])?|[nN][aA][nN])\s*$"
)
_SCALE_TEXT = r"^\s*\+?(?:[0-9_]+\.?[0-9_]*|\.[0-9_]+)(?:[eE][+-]?[0-9]+)?\s*$"
_DIGITS = r"^\s*[+-]?[0-9]+(?:_[0-9]+)*\s*$"
_YES_OR_NO = ("1", "on", "t", "true", "y", "yes", "0", "off", "f", "false", "n", "no")
_LIMITS = {"gt": "exclusiveMinimum", "ge": "minimum", "lt": "exclusiveMaximum", "le": "maximum"}
_STRATEGIES = ("auto", "step", "epoch")

# Kind of value (``values.kind_of``) -> its schema. JSON has neither infinity nor NaN, and to it
# 1 and 1.0 are the same number.
_KINDS: dict[str, Schema] = {
    "true": {"const": True},
    "false": {"const": False},
    "null": {"type": "null"},
    "zero": {"type": "integer", "const": 0},
    "float_zero": {"type": "number", "const": 0},
    "one": {"type": "integer", "const": 1},
    "float_one": {"type": "number", "const": 1},
    "positive": {"type": "integer", "minimum": 2},
    "float": {"type": "number", "exclusiveMinimum": 0},
    "negative": {"type": "integer", "maximum": -1},
    "float_negative": {"type": "number", "exclusiveMaximum": 0},
    "auto": AUTO,
    "empty_string": {"const": ""},
    "digits": {"type": "string", "pattern": _DIGITS},
    "string": {"type": "string", "minLength": 1},
    "empty_list": {"type": "array", "maxItems": 0},
    "strings": {"type": "array", "minItems": 1, "items": {"type": "string"}},
    "list": {"type": "array", "minItems": 1},
    "empty_object": {"type": "object", "maxProperties": 0},
    "object": {"type": "object", "minProperties": 1},
}
# Kinds that one word says together.
_WHOLE: tuple[tuple[frozenset[str], Schema], ...] = (
    (frozenset({"true", "false"}), {"type": "boolean"}),
    (
        frozenset({"zero", "float_zero", "one", "float_one", "positive", "float"})
        | {"negative", "float_negative"},
        {"type": "number"},
    ),
    (frozenset({"auto", "empty_string", "digits", "string"}), {"type": "string"}),
    (frozenset({"empty_list", "strings", "list"}), {"type": "array"}),
    (frozenset({"empty_object", "object"}), {"type": "object"}),
)
OF_OBJECTS = frozenset({"empty_object", "object"})


def of_kinds(refused: Collection[str]) -> list[Schema] | None:
    """Schemas of which a value must meet one; None where no kind is refused."""
    left = [kind for kind in _KINDS if kind not in refused]
    if len(left) == len(_KINDS):
        return None
    found = []
    for kinds, schema in _WHOLE:
        if kinds <= set(left):
            found.append(schema)
            left = [kind for kind in left if kind not in kinds]
    return found + [_KINDS[kind] for kind in left]


def of_key(key: Key, *, drops_auto: bool, strict: bool) -> list[Schema] | None:
    """Schemas of which a value of the key must meet one; None where any value is taken.

    Args:
        key: of the table.
        drops_auto: "auto" is thrown away before the value is looked at.
        strict: where DeepSpeed looks at no type, the default's type is asked for.
    """
    if key.type == "any":
        found = _of_any(key)
        if found is None and strict:
            found = _like_default(key)
    else:
        found = [{"type": "null"}] * key.nullable + _typed(key)
    if found is not None and drops_auto and AUTO not in found:
        found.append(AUTO)
    return found


def _of_any(key: Key) -> list[Schema] | None:
    found = of_kinds(key.refuses)
    if not key.allowed or found is None or {"type": "string"} in found:
        return found
    return [{"enum": list(key.allowed)}, *_spellings(key), *found]


def _spellings(key: Key) -> list[Schema]:
    """Allowed words in any case, where the parser folds it."""
    if key.path == "torch_autocast.dtype":
        return []
    return [{"type": "string", "pattern": _any_case(tuple(map(str, key.allowed)))}]


def _any_case(words: tuple[str, ...]) -> str:
    letters = (
        "".join(f"[{c.lower()}{c.upper()}]" if c.isalpha() else re.escape(c) for c in word)
        for word in words
    )
    return f"^(?:{'|'.join(letters)})$"


def _like_default(key: Key) -> list[Schema] | None:
    """Type of the default, where there is one that says something."""
    if isinstance(key.default, bool):
        return [{"type": "boolean"}, AUTO]
    if isinstance(key.default, int | float):
        return [{"type": "number"}, {"type": "null"}, AUTO]
    if isinstance(key.default, str) and key.default != "auto":
        return [{"type": "string"}, {"type": "null"}]
    return None


def _typed(key: Key) -> list[Schema]:
    if key.path == "fp16.loss_scale":
        return [{"type": "number", "minimum": 0}, {"type": "string", "pattern": _SCALE_TEXT}]
    if key.path in ("fp16.loss_scale_window", "fp16.min_loss_scale"):
        return [{"type": "integer"}, {"type": "string", "pattern": _DIGITS}]
    if key.path.endswith("zenflow.select_strategy"):
        return [{"enum": list(_STRATEGIES)}]
    if key.type == "str|int":
        least = {"minimum": 1} if key.path.endswith("update_interval") else {}
        return [AUTO, {"type": "integer", **least}, _booleans(least)]
    if key.allowed and key.type == "int":
        return _of_numbers(key)
    if key.allowed and key.type == "str":
        return [{"enum": list(key.allowed)}]
    return _BY_TYPE[key.type](key)


def _booleans(least: Schema) -> Schema:
    return {"const": True} if least else {"type": "boolean"}


def _of_numbers(key: Key) -> list[Schema]:
    """Few whole numbers, as numbers, as text, and as the booleans that stand for 0 and 1."""
    words = "|".join(str(number) for number in key.allowed)
    text = {"type": "string", "pattern": rf"^\s*\+?0*(?:{words})(?:\.0+)?\s*$"}
    found: list[Schema] = [{"enum": list(key.allowed)}, text]
    return found + [{"type": "boolean"}] * ({0, 1} <= set(key.allowed))


def _number(key: Key) -> list[Schema]:
    limits = {_LIMITS[name]: limit for name, limit in key.bounds.items()}
    kind, pattern = ("integer", _INT_TEXT) if key.type == "int" else ("number", _FLOAT_TEXT)
    holds = [flag for flag in (False, True) if _within(flag, key)]
    booleans: list[Schema] = (
        [{"type": "boolean"}] if len(holds) == 2 else [{"const": flag} for flag in holds]
    )
    return [{"type": kind, **limits}, {"type": "string", "pattern": pattern}, *booleans]


def _within(flag: bool, key: Key) -> bool:
    """Whether true and false, which count as 1 and 0, are within the bounds."""
    tests: dict[str, Callable[[float, float], bool]]
    tests = {"gt": operator.gt, "ge": operator.ge, "lt": operator.lt, "le": operator.le}
    return all(tests[name](flag, limit) for name, limit in key.bounds.items())


def _flag(key: Key) -> list[Schema]:
    words = {"type": "string", "pattern": _any_case(_YES_OR_NO)}
    return [{"type": "boolean"}, {"enum": [0, 1]}, words]


def _list(key: Key) -> list[Schema]:
    items: Schema = {"enum": list(key.allowed)} if key.allowed else {}
    if key.items == "str" and not key.allowed:
        items = {"type": "string"}
    found: list[Schema] = [{"type": "array", "items": items} if items else {"type": "array"}]
    is_leaf = key.path.startswith("zero_optimization.leaf_module.")
    return found + [{"type": "string"}] * is_leaf


_BY_TYPE: dict[str, Callable[[Key], list[Schema]]] = {
    "bool": _flag,
    "int": _number,
    "float": _number,
    "str": lambda key: [{"type": "string"}],
    "path": lambda key: [{"type": "string"}],
    "list": _list,
    "dict": lambda key: [{"type": "object"}],
    "tuple": lambda key: [{"type": "array"}],
    "dtype": lambda key: [],
}
