"""A crosscheck for a reader at a terminal."""

from collections.abc import Iterator, Sequence

from zero_sizer.report.table import show_table
from zero_sizer.units import format_gib
from zero_sizer.witnesses.crosscheck import Crosscheck, Row, worst_ranks
from zero_sizer.witnesses.helpers import Difference

_ALWAYS = ("live", "model states", "peak")


def show(check: Crosscheck) -> None:
    """Print the rows (of each quantity the rank furthest off), then the reasons and notes."""
    rows = [row for row in worst_ranks(check.rows) if _is_worth_showing(row)]
    heads = ("witness", "device", "phase", "what", "predicted", "witnessed", "error")
    show_table(heads, (_cells(row) for row in rows), right=(4, 5, 6))
    if check.differences:
        print("\nPredicted minus helper, part by part:")
        show_table(("", "", ""), _reasons(check.differences), right=(1,))
    for note in check.notes:
        print(f"note: {note}")


def _is_worth_showing(row: Row) -> bool:
    if row.quantity in _ALWAYS or row.witness == "rules":
        return bool(row.predicted or row.witnessed)
    return row.predicted != row.witnessed


def _cells(row: Row) -> tuple[str, ...]:
    error = "" if row.error is None else f"{row.error:+.2%}"
    return (
        row.witness,
        row.device,
        row.phase,
        row.quantity,
        format_gib(row.predicted),
        format_gib(row.witnessed),
        error,
    )


def _reasons(differences: Sequence[Difference]) -> Iterator[tuple[str, str, str]]:
    for item in differences:
        yield item.device.value, format_gib(item.num_bytes), item.about
