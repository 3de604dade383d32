"""Plain tables and lines. Not by rich: importing it costs a fifth of the time `check` may take."""

from collections.abc import Container, Iterable, Iterator, Sequence
from itertools import zip_longest
from textwrap import wrap

from zero_sizer.units import GIB
from zero_sizer.util.terminal import output_columns

_GAP = 2
_NARROWEST = 8  # columns of text below which breaking words makes it unreadable


def show_line(text: str, *, indent: str = "  ") -> None:
    """Print a sentence over as many lines as the output is narrow, the later ones indented."""
    width = max(output_columns(), 2 * _NARROWEST)
    lines = wrap(text, width, subsequent_indent=indent, break_on_hyphens=False)
    print("\n".join(lines) or text)


def show_table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], *, right: Container[int] = ()
) -> None:
    """Print a table; the columns in ``right`` are right-aligned and never broken."""
    table = [tuple(heads), *map(tuple, rows)] if any(heads) else list(map(tuple, rows))
    widths = _widths(table, right, output_columns())
    for row in table:
        for cells in _lines(row, widths, right):
            aligned = [
                cell.rjust(size) if index in right else cell.ljust(size)
                for index, (cell, size) in enumerate(zip(cells, widths, strict=True))
            ]
            print((" " * _GAP).join(aligned).rstrip())


def _widths(table: Sequence[Sequence[str]], right: Container[int], width: int) -> list[int]:
    """As wide as the contents; while that is too wide, the widest left column gives way.

    None gives way below what a word needs: a line may then be longer than the output is wide.
    """
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    loose = [index for index in range(len(widths)) if index not in right]
    excess = sum(widths) + _GAP * (len(widths) - 1) - width
    while excess > 0 and loose:
        widest = max(loose, key=lambda index: widths[index])
        if widths[widest] <= _NARROWEST:
            break
        widths[widest] -= 1
        excess -= 1
    return widths


def _lines(
    row: Sequence[str], widths: Sequence[int], right: Container[int]
) -> Iterator[tuple[str, ...]]:
    cells = [
        [cell] if index in right else wrap(cell, max(size, 1)) or [""]
        for index, (cell, size) in enumerate(zip(row, widths, strict=True))
    ]
    yield from zip_longest(*cells, fillvalue="")


def gib(num_bytes: int) -> str:
    """GiB as a bare number; a dash for nothing."""
    if not num_bytes:
        return "-"
    value = num_bytes / GIB
    return f"{value:,.2f}" if value >= 0.005 else "<0.01"


def span(low: int, high: int) -> str:
    """A range of GiB."""
    return f"{low / GIB:,.1f}-{high / GIB:,.1f}"
