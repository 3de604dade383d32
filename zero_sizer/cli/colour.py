"""Colour of the words that an answer turns on, where a terminal takes it.

NO_COLOR (no-color.org) switches it off, FORCE_COLOR on where output is not a terminal.
"""

import os
import re
from typing import Any

_GOOD, _BAD, _OPEN, _ASIDE = "1;32", "1;31", "1;33", "36"
_WORDS = {
    "FITS": _GOOD,
    "DOES NOT FIT": _BAD,
    "NOTHING": _BAD,
    "zero-sizer:": _BAD,
    "error:": _BAD,
    "COULD NOT TELL": _OPEN,
    "warning:": _OPEN,
    "note:": _ASIDE,
}
_AT_START = re.compile("|".join(rf"{re.escape(word)}(?=[\s,]|$)" for word in _WORDS))


def is_taken(stream: Any) -> bool:
    """True if what is written to ``stream`` may be coloured."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return os.environ.get("TERM") != "dumb" and stream is not None and bool(stream.isatty())


def painted(line: str) -> str:
    """``line`` with the word that it begins with in colour, if that is one of those above."""
    found = _AT_START.match(line)
    if found is None:
        return line
    return f"\033[{_WORDS[found[0]]}m{found[0]}\033[0m{line[found.end() :]}"
