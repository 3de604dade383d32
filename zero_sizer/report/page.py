"""An answer as one HTML file that needs nothing else: to share, to print, to keep."""

import shlex
import sys
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from zero_sizer.advise.fit_map import FitMap
from zero_sizer.answer import Answer
from zero_sizer.ledger.verdict import Verdict
from zero_sizer.report.charts import PARTS, Chart, charts_of
from zero_sizer.report.extra import missing
from zero_sizer.report.sheet import Sheet, peak_name, sheet_of
from zero_sizer.report.verdict import WORDS
from zero_sizer.units import format_gib
from zero_sizer.version import __version__

_MARKS = {Verdict.FITS: "fits", Verdict.UNCERTAIN: "?", Verdict.DOES_NOT_FIT: "too large"}


def show(answer: Answer, *, timeline: bool = False) -> None:
    """Print the page; it always shows the timeline."""
    print(page_of(answer, command=command()))


def command() -> str:
    """The line that is being answered."""
    return shlex.join(["zero-sizer", *sys.argv[1:]])


def page_of(answer: Answer, *, command: str = "") -> str:
    """The whole page.

    Args:
        answer: finished, with its points and its map.
        command: that made it; empty where none did.

    Raises:
        InputError: jinja2 or pygal is not installed.
    """
    return page_of_sheet(
        sheet_of(answer),
        charts={peak_name(device): chart for device, chart in charts_of(answer).items()},
        fit_map=_table_of(answer.fit_map),
        command=command,
    )


def page_of_sheet(
    sheet: Sheet,
    *,
    charts: Mapping[str, Chart] = {},
    fit_map: dict[str, Any] | None = None,
    command: str = "",
) -> str:
    """A page of what is laid out already.

    Args:
        sheet: the answer.
        charts: pictures, by the name of the section that they belong to.
        fit_map: rows of verdicts, behind the first section.
        command: that made it; empty where none did.

    Raises:
        InputError: jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, FunctionLoader, StrictUndefined
    except ImportError as error:
        raise missing(error) from None
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(_text),
    )
    return environment.get_template("report.html").render(
        sheet=sheet,
        charts=charts,
        parts=PARTS,
        fit_map=fit_map,
        command=command,
        version=__version__,
    )


def _text(name: str) -> str:
    """A template, or the style sheet that stands in it."""
    return files("zero_sizer.report").joinpath("data", name).read_text("utf-8")


def _table_of(found: FitMap | None) -> dict[str, Any] | None:
    """The map as rows of cells: a word, a class and what a pointer shows."""
    if found is None:
        return None
    rows = []
    for index, (batch, cells) in enumerate(zip(found.micro_batches, found.rows, strict=True)):
        row = [
            {
                "word": "" if cell is None else _MARKS[cell.verdict],
                "kind": "none" if cell is None else cell.verdict.value,
                "size": "" if cell is None else format_gib(cell.num_bytes),
                "about": "no plan" if cell is None else WORDS[cell.verdict],
                "device": "" if cell is None else cell.device,
                "is_own": (index, column) == found.own,
            }
            for column, cell in enumerate(cells)
        ]
        rows.append({"batch": batch, "cells": row})
    return {"nodes": found.nodes, "rows": rows}
