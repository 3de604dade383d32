"""A plot of columns in plain text, in groups side by side.

By hand: rich has no plots, and importing plotext takes as long as a whole ``check``.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

_HEIGHT = 12  # rows of text
_TALLER = 4  # a limit this many times the highest column would leave the plot flat: not drawn
_WIDEST = 2  # characters a column may be widened to
_EIGHTHS = " ▁▂▃▄▅▆▇█"


class Column(NamedTuple):
    """One value, and whether it is the one to mark."""

    value: int
    marked: bool = False


Group = tuple[str, Sequence[Column]]


def draw(
    groups: Sequence[Group],
    *,
    width: int,
    limit: int | None,
    label: Callable[[int], str],
    plain: bool = False,
) -> Iterator[str]:
    """The lines of a plot.

    Args:
        groups: name and columns of each, left to right.
        width: characters of a line.
        limit: drawn as a line where it is known and not far above everything.
        label: a value as text, for the axis.
        plain: ASCII only.
    """
    highest = max((column.value for _, columns in groups for column in columns), default=0)
    limit = limit if limit is not None and limit <= _TALLER * highest else None
    top = max(highest, limit or 0, 1)
    margin = max(len(label(value)) for value in (top, highest, 0)) + 2
    fitted = _fit(groups, max(width - margin - len(groups) - 1, len(groups)))
    yield " " * margin + _marks(fitted, "v" if plain else "▼")
    for row in range(_HEIGHT - 1, -1, -1):
        ceiling = _row_of(limit, top) == row if limit is not None else False
        name = label(top) if row == _HEIGHT - 1 else ""
        if ceiling and limit is not None:
            name = label(limit)
        bars = (_cells(columns, row, top, ceiling, plain) for _, columns in fitted)
        yield f"{name:>{margin - 2}} |" + "|".join(bars) + "|"
    names = (name[: len(columns)].ljust(len(columns)) for name, columns in fitted)
    yield f"{label(0):>{margin - 2}} |" + "|".join(names) + "|"


def _row_of(value: int, top: int) -> int:
    return min(value * _HEIGHT // top, _HEIGHT - 1)


def _fit(groups: Sequence[Group], width: int) -> list[tuple[str, list[Column]]]:
    """Columns widened so that a group can carry its name, or merged so that all fit."""
    shares = [max(len(columns), len(name)) for name, columns in groups]
    least = [min(share, len(name)) for share, (name, _) in zip(shares, groups, strict=True)]
    spare = max(width - sum(least), 0)
    wanted = sum(share - low for share, low in zip(shares, least, strict=True))
    widths = [
        min(low + (share - low) * spare // wanted if wanted else low, _WIDEST * share)
        for share, low in zip(shares, least, strict=True)
    ]
    return [
        (name, _resized(columns, size))
        for (name, columns), size in zip(groups, widths, strict=True)
    ]


def _resized(columns: Sequence[Column], size: int) -> list[Column]:
    """``size`` columns: each the highest of those it stands for; one stays marked."""
    count = len(columns)
    found: list[Column] = []
    for index in range(size if count else 0):
        first = index * count // size
        last = max((index + 1) * count // size, first + 1)
        best = max(columns[first:last], key=lambda c: (c.marked, c.value))
        is_first = not any(column.marked for column in found)
        found.append(Column(best.value, best.marked and is_first))
    return found


def _marks(groups: Sequence[tuple[str, list[Column]]], mark: str) -> str:
    return " ".join(
        "".join(mark if column.marked else " " for column in columns) for _, columns in groups
    ).rstrip()


def _cells(columns: Sequence[Column], row: int, top: int, ceiling: bool, plain: bool) -> str:
    empty = ("-" if plain else "╌") if ceiling else " "
    cells = []
    for column in columns:
        eighths = -(-column.value * _HEIGHT * 8 // top) - row * 8
        filled = max(0, min(eighths, 8))
        if plain:
            cells.append("#" if filled >= 4 else empty)
        else:
            cells.append(_EIGHTHS[filled] if filled else empty)
    return "".join(cells)
