"""Names in messages: as they were written, and what a misspelt one may have meant."""

from collections.abc import Iterable
from typing import Any

_SHOWN = 60


def nearest(name: str, known: Iterable[str], *, count: int = 1, cutoff: float = 0.6) -> list[str]:
    """The known names that ``name`` resembles, the most alike first."""
    from difflib import get_close_matches  # only where something is wrong

    return get_close_matches(name, list(known), n=count, cutoff=cutoff)


def did_you_mean(name: str, known: Iterable[str], *, count: int = 1) -> str:
    """A question for the reader; "" where nothing is near."""
    near = nearest(name, known, count=count)
    return f"did you mean {' or '.join(near)}?" if near else ""


def shown(value: Any) -> str:
    """``value`` for an error line, never longer than a line."""
    if isinstance(value, str | list | tuple) and len(value) > _SHOWN:
        value = value[:_SHOWN]
    try:
        written = repr(value)
    except (ValueError, RecursionError):  # an int of thousands of digits; lists in lists
        return "this value"
    return written if len(written) <= _SHOWN else written[: _SHOWN - 3] + "..."
