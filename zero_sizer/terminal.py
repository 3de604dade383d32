"""How wide what is printed may be."""

import os


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
