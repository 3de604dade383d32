"""Values of a file that says it is ours: of the right kind and size, or a ValueError in words."""

from collections.abc import Collection, Mapping
from typing import Any

from zero_sizer.util.spelling import shown

MOST_BYTES = 2**62
MOST_RANKS = 2**20
_MOST_ITEMS = 1_000_000


def mapping(value: Any, what: str) -> Mapping[str, Any]:
    """A mapping with words for keys."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ValueError(f"{what} is {shown(value)}, not a mapping")
    return value


def only(values: Mapping[str, Any], known: Collection[str], what: str) -> None:
    """No keys but these: another one is read by nobody."""
    for key in values:
        if key not in known:
            raise ValueError(f"{what} has {shown(key)}, none of {', '.join(known)}")


def items(value: Any, what: str, *, most: int = _MOST_ITEMS) -> list[Any]:
    """A list of at most ``most`` items."""
    if not isinstance(value, list | tuple):
        raise ValueError(f"{what} is {shown(value)}, not a list")
    if len(value) > most:
        raise ValueError(f"{what} has {len(value):,} items; at most {most:,} are read")
    return list(value)


def texts(value: Any, what: str) -> tuple[str, ...]:
    """A list of texts."""
    return tuple(text(item, f"{what}[{index}]") for index, item in enumerate(items(value, what)))


def text(value: Any, what: str) -> str:
    """A text."""
    if not isinstance(value, str):
        raise ValueError(f"{what} is {shown(value)}, not text")
    return value


def one_of(value: Any, what: str, known: Collection[str]) -> str:
    """One of these words."""
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{what} is {shown(value)}, none of {', '.join(known)}")
    return value


def whole(value: Any, what: str, *, least: int = 0, most: int = MOST_BYTES) -> int:
    """A whole number; neither true nor 1.0 is one."""
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{what} is {shown(value)}, not a whole number from {least} to {most:,}")
    return value


def number(value: Any, what: str, *, most: float = 1e18) -> float:
    """A number from 0 on."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= most:
        raise ValueError(f"{what} is {shown(value)}, not a number from 0 to {most:g}")
    return float(value)


def flag(value: Any, what: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ValueError(f"{what} is {shown(value)}, not true or false")
    return value


def required(values: Mapping[str, Any], key: str, what: str) -> Any:
    """The value of ``key``."""
    if key not in values:
        raise ValueError(f"{what} has no {key}")
    return values[key]
