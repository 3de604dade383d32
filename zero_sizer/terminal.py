"""How wide what is printed may be."""

import os
import sys

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
    return int(found) if found.isdecimal() else 0
