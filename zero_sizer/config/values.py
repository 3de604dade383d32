"""Conversions that DeepSpeed makes of one value: pydantic's lenient ones, hand-written parsers.

Witness: tests/config/test_config_against_deepspeed.py feeds DeepSpeed's own parser the same values.
"""

import math
import re
from collections.abc import Callable
from typing import Any

from zero_sizer.config.keys import Key

_TRUE = ("1", "on", "t", "true", "y", "yes")
_FALSE = ("0", "off", "f", "false", "n", "no")
_INT_TEXT = re.compile(r"[+-]?[0-9]+(?:_[0-9]+)*(?:\.0+)?")
_FLOAT_TEXT = re.compile(r"[+-]?(?:[0-9_]+\.?[0-9_]*|\.[0-9_]+)(?:[eE][+-]?[0-9]+)?")
_MAX_DIGITS = 4300
_BOUNDS: dict[str, tuple[str, Callable[[float, float], bool]]] = {
    "gt": ("greater than", lambda value, limit: value > limit),
    "ge": ("at least", lambda value, limit: value >= limit),
    "lt": ("less than", lambda value, limit: value < limit),
    "le": ("at most", lambda value, limit: value <= limit),
}


class RefusedError(ValueError):
    """DeepSpeed's parser would raise.

    Attributes:
        exception: name of the exception.
        out_of_range: the type is right, the value is not.
    """

    def __init__(
        self, message: str, exception: str = "ValidationError", *, out_of_range: bool = False
    ) -> None:
        self.exception = exception
        self.out_of_range = out_of_range
        super().__init__(message)


def _out_of_range(message: str, exception: str = "ValidationError") -> RefusedError:
    return RefusedError(message, exception, out_of_range=True)


def shown(value: Any) -> str:
    """``value`` as it stands in JSON, cut to a readable length."""
    import json

    try:
        text = json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def convert(key: Key, value: Any) -> Any:
    """Value that DeepSpeed holds for ``key`` after parsing.

    Raises:
        RefusedError: DeepSpeed refuses the value.
    """
    if key.type == "any":
        return _by_kind(key, value)
    if value is None and key.nullable:
        return None
    value = _prepared(key, value)
    result = _typed(key, value)
    for name, limit in key.bounds.items():
        words, holds = _BOUNDS[name]
        if not holds(result, limit):
            raise _out_of_range(f"must be {words} {limit}, not {shown(value)}")
    return _finished(key, result)


def kind_of(value: Any) -> str:
    """Kind of a JSON value, in the words of the table's ``refuses``."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, str):
        return _kind_of_text(value)
    if isinstance(value, float):
        return _kind_of_float(value)
    if isinstance(value, int):
        return {0: "zero", 1: "one"}.get(value, "positive" if value > 0 else "negative")
    if isinstance(value, list):
        texts = all(isinstance(item, str) for item in value)
        return "empty_list" if not value else "strings" if texts else "list"
    return "object" if value else "empty_object"


def _kind_of_text(value: str) -> str:
    if value in ("", "auto"):
        return value or "empty_string"
    try:
        int(value)
    except ValueError:
        return "string"
    return "digits"


def _kind_of_float(value: float) -> str:
    if math.isnan(value) or math.isinf(value):
        return "nan" if math.isnan(value) else "inf"
    named = {0.0: "float_zero", 1.0: "float_one"}
    return named.get(value, "float" if value > 0 else "float_negative")


def refusal(refuses: Any, value: Any) -> str:
    """Exception that a section's or key's parser raises for ``value``; "" if none."""
    return str(refuses.get(kind_of(value), ""))


def _by_kind(key: Key, value: Any) -> Any:
    """Hand-written parsers: most keep what they get; some refuse whole kinds of values."""
    exception = refusal(key.refuses, value)
    if exception and not (isinstance(value, str) and _spelt(key, value)):
        if key.allowed and isinstance(value, str):
            raise _out_of_range(f"{shown(value)} is none of {_listing(key)}", exception)
        raise RefusedError(f"cannot be {shown(value)}", exception)
    return _spelt(key, value) if key.allowed and isinstance(value, str) else value


def _spelt(key: Key, value: str) -> str:
    """The allowed spelling that DeepSpeed makes of ``value`` (these parsers fold the case)."""
    if key.path == "torch_autocast.dtype":  # DtypeEnum: exact spellings
        return value if value in key.allowed else ""
    return next((word for word in key.allowed if word.lower() == value.lower()), "")


def _listing(key: Key) -> str:
    return ", ".join(shown(word) for word in key.allowed)


def _typed(key: Key, value: Any) -> Any:
    if key.allowed and key.type in ("int", "str"):
        return _one_of(key, value)
    if key.type == "str|int":
        return value if isinstance(value, str) else _int(value)
    if key.type == "list":
        return _list(key, value)
    return _CONVERSIONS[key.type](value)


def _one_of(key: Key, value: Any) -> Any:
    try:
        result = _int(value) if key.type == "int" else _str(value)
    except RefusedError:
        result = None
    if result is None or result not in key.allowed:
        raise _out_of_range(f"{shown(value)} is none of {_listing(key)}")
    return result


def _bool(value: Any) -> bool:
    if isinstance(value, str) and value.lower() in _TRUE + _FALSE:
        return value.lower() in _TRUE
    if isinstance(value, bool | int | float) and value in (0, 1):
        return bool(value)
    raise RefusedError(f"must be true or false, not {shown(value)}")


def _int(value: Any) -> int:
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**63:
        return int(value)
    if isinstance(value, str) and len(value) <= _MAX_DIGITS:
        text = value.strip()
        if _INT_TEXT.fullmatch(text):
            return int(text.split(".")[0])
    raise RefusedError(f"must be a whole number, not {shown(value)}")


def _float(value: Any) -> float:
    if isinstance(value, int | float):
        try:
            return float(value)
        except OverflowError:
            raise RefusedError(f"must be a number, not {shown(value)}") from None
    if isinstance(value, str):
        text = value.strip()
        if _FLOAT_TEXT.fullmatch(text) or text.lower().lstrip("+-") in ("inf", "infinity", "nan"):
            try:
                return float(text)
            except ValueError:
                pass
    raise RefusedError(f"must be a number, not {shown(value)}")


def _str(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise RefusedError(f"must be a string, not {shown(value)}")


def _list(key: Key, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise RefusedError(f"must be a list, not {shown(value)}")
    if key.items == "str" and not all(isinstance(item, str) for item in value):
        raise RefusedError(f"must be a list of strings, not {shown(value)}")
    if key.allowed and not all(item in key.allowed for item in value):
        raise _out_of_range(f"{shown(value)} holds something else than {_listing(key)}")
    return list(value)


def _dict(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    raise RefusedError(f"must be an object, not {shown(value)}")


def _tuple(value: Any) -> tuple[Any, ...]:
    if isinstance(value, list):
        return tuple(value)
    raise RefusedError(f"must be a list, not {shown(value)}")


def _dtype(value: Any) -> Any:
    raise RefusedError(f"cannot be set from JSON: {shown(value)} is no torch.dtype")


_CONVERSIONS: dict[str, Callable[[Any], Any]] = {
    "bool": _bool,
    "int": _int,
    "float": _float,
    "str": _str,
    "path": _str,
    "dict": _dict,
    "tuple": _tuple,
    "dtype": _dtype,
}


def _prepared(key: Key, value: Any) -> Any:
    """DeepSpeed's own validators that run before pydantic's conversion."""
    if key.path == "fp16.loss_scale":  # runtime/precision_config.py:104
        return _loss_scale(value)
    if key.path in ("fp16.loss_scale_window", "fp16.min_loss_scale"):  # precision_config.py:149
        return _no_bool_integer(value)
    if key.path.startswith("zero_optimization.leaf_module.") and isinstance(value, str):
        return [value]  # runtime/zero/leaf_module_config.py:33
    return value


def _loss_scale(value: Any) -> float:
    try:
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise RefusedError(f"must be a number of 0 or more, not {shown(value)}")
    return number


def _no_bool_integer(value: Any) -> Any:
    whole = not isinstance(value, str) or _kind_of_text(value) == "digits"
    finite = not isinstance(value, float) or math.isfinite(value)
    if isinstance(value, bool) or not (whole and finite):
        raise RefusedError(f"must be a whole number, not {shown(value)}")
    return value


def _finished(key: Key, value: Any) -> Any:
    """DeepSpeed's own validators that run on the converted value (zenflow_config.py:49)."""
    name = key.path.removeprefix("zero_optimization.zenflow.")
    if name == "select_strategy" and value not in ("auto", "step", "epoch"):
        raise _out_of_range(f'{shown(value)} is none of "auto", "step", "epoch"')
    if name in ("select_interval", "update_interval") and isinstance(value, str):
        if value != "auto":
            raise RefusedError(f'must be "auto" or a whole number, not {shown(value)}')
    elif name == "update_interval" and value < 1:
        raise _out_of_range(f"must be at least 1, not {shown(value)}")
    return value
