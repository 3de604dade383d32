"""How wide what is printed may be, and names that stay on their line."""

import os
import sys

_WIDEST = 1_000
_PIPED_WIDTH = 120  # columns when the output is no terminal, so that it is the same everywhere


def output_columns() -> int:
    """Columns that standard output may take; ``COLUMNS`` decides for a pipe too."""
    is_known = sys.stdout.isatty() or _stated()
    return columns() if is_known else _PIPED_WIDTH


def columns() -> int:
    """Columns of the terminal, 80 where there is none.

    As ``shutil.get_terminal_size``, whose module loads every compression library: a cold start
    would notice.
    """
    stated = _stated()
    if stated:
        return stated
    try:
        return os.get_terminal_size().columns or 80
    except OSError:
        return 80


def _stated() -> int:
    found = os.environ.get("COLUMNS", "")
    return min(int(found[:9]), _WIDEST) if found.isdecimal() else 0


def one_line(text: str, most: int = 2_000) -> str:
    """``text`` on one line, cut where it is longer than ``most`` characters."""
    text = text[: most + 1] if len(text) > most else text
    if not text.isprintable():
        text = " ".join(text.replace("\x1c", " ").split())
    return text if len(text) <= most else text[: most - 3] + "..."
