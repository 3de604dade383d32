"""How wide what is printed may be."""

import os
import sys

_PIPED_WIDTH = 120  # columns when the output is no terminal, so that it is the same everywhere


def output_columns() -> int:
    """Columns that standard output may take."""
    return columns() if sys.stdout.isatty() else _PIPED_WIDTH


def columns() -> int:
    """Columns of the terminal, 80 where there is none.

    As ``shutil.get_terminal_size``, whose module loads every compression library: a cold start
    would notice.
    """
    stated = os.environ.get("COLUMNS", "")
    if stated.isdecimal() and int(stated):
        return int(stated)
    try:
        return os.get_terminal_size().columns or 80
    except OSError:
        return 80
