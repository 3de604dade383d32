"""Plain tables and lines. Not by rich: importing it costs a fifth of the time `check` may take."""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
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
    gap, widths = _layout(table, right, output_columns())
    for row in table:
        for cells in _lines(row, widths, right):
            aligned = [
                cell.rjust(size) if index in right else cell.ljust(size)
                for index, (cell, size) in enumerate(zip(cells, widths, strict=True))
            ]
            print((" " * gap).join(aligned).rstrip())


def _layout(
    table: Sequence[Sequence[str]], right: Container[int], width: int
) -> tuple[int, list[int]]:
    """Columns between the columns, and how wide each is: as its contents while there is room.

    Else left columns give way, the widest first: to their longest word, then with less between
    them, and only then within words. A line may be longer than the output where that is too wide.
    """
    columns = list(zip(*table, strict=True))
    widths = [max(map(len, column)) for column in columns]
    if sum(widths) + _GAP * (len(widths) - 1) <= width:
        return _GAP, widths
    loose = [index for index in range(len(widths)) if index not in right]
    words = {index: max(_NARROWEST, *map(_longest_word, columns[index])) for index in loose}
    narrowest = dict.fromkeys(loose, _NARROWEST)
    for gap, least in ((_GAP, words), (1, words), (_GAP, narrowest)):
        found = _narrowed(widths, least, width - gap * (len(widths) - 1))
        if sum(found) + gap * (len(found) - 1) <= width:
            return gap, found
    return _GAP, found


def _narrowed(widths: Sequence[int], least: Mapping[int, int], width: int) -> list[int]:
    """The widest of the columns in ``least`` that may still give way does, until all have room."""
    found = list(widths)
    for _ in range(sum(found) - width):
        wide = [index for index in least if found[index] > least[index]]
        if not wide:
            break
        found[max(wide, key=lambda index: found[index])] -= 1
    return found


def _longest_word(text: str) -> int:
    return max(map(len, wrap(text, 1, break_long_words=False)), default=0)


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
