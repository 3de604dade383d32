"""Plain tables through rich, imported only when one is shown."""

import shutil
from collections.abc import Container, Iterable, Sequence

_PIPED_WIDTH = 120  # columns when the output is no terminal, so that it is the same everywhere


def show_table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], *, right: Container[int] = ()
) -> None:
    """Print a table; the columns in ``right`` are right-aligned and never broken."""
    import sys

    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    for index, head in enumerate(heads):
        if index in right:
            table.add_column(head, justify="right", no_wrap=True)
        else:
            table.add_column(head, overflow="fold")
    table.show_header = any(heads)
    for row in rows:
        table.add_row(*row)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _PIPED_WIDTH
    Console(highlight=False, markup=False, width=width).print(table)
