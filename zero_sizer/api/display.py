"""Answers in a notebook: plain HTML, in which nothing that a file says is markup."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from zero_sizer.cli.streams import escaped
from zero_sizer.report.sheet import Sheet
from zero_sizer.units import format_gib

_MOST = 200  # rows of a table

COLOURS = {"fits": "#1a7f37", "does_not_fit": "#cf222e", "uncertain": "#9a6700"}
"""Verdict -> colour that is read on white and on black."""


def text(value: Any) -> str:
    """A value as the text of an element."""
    return escape(escaped(str(value)))


def badge(verdict: str, words: str) -> str:
    """The verdict, coloured, with the words beside it."""
    colour = COLOURS.get(verdict, "inherit")
    name = text(verdict.replace("_", " ").upper())
    return f'<p><b style="color:{colour}">{name}</b> {text(words)}</p>'


def table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table with a head; of many rows the first."""
    head = "".join(f"<th>{text(head)}</th>" for head in heads)
    body = "".join(f"<tr>{_cells(row)}</tr>" for row in rows[:_MOST])
    left = len(rows) - _MOST
    more = f"<p>and {left:,} more rows</p>" if left > 0 else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def listing(lines: Iterable[str]) -> str:
    """A list, nothing where there is none."""
    items = "".join(f"<li>{text(line)}</li>" for line in lines)
    return f"<ul>{items}</ul>" if items else ""


def sheet(found: Sheet) -> str:
    """An answer that is laid out in sections: verdict, sentences, tables."""
    parts = [badge(found.kind.value, found.verdict), listing((*found.reasons, found.job))]
    for section in found.sections:
        parts.append(f"<p><b>{text(section.title)}</b></p>")
        parts.append(listing(section.lines))
        if section.heads:
            parts.append(table(section.heads, section.rows))
        if section.code:
            parts.append(f"<pre>{text(section.code)}</pre>")
    return "".join(parts)


def size(num_bytes: int | None) -> str:
    """Bytes for a reader."""
    return "" if num_bytes is None else format_gib(num_bytes)


def _cells(row: Sequence[Any]) -> str:
    return "".join(f"<td>{'' if value is None else text(value)}</td>" for value in row)
