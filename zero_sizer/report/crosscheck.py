"""A crosscheck for a reader at a terminal."""

from collections.abc import Iterator, Mapping, Sequence

from zero_sizer.crosscheck.compare import BOUNDARIES, Cause, Crosscheck, Row, worst_ranks
from zero_sizer.crosscheck.helpers import Difference
from zero_sizer.report.document import print_document
from zero_sizer.report.json import reason_mapping
from zero_sizer.report.table import show_line, show_table
from zero_sizer.report.verdict import show_job, show_verdict
from zero_sizer.sizing import Sizing
from zero_sizer.units import format_gib

_WORTH_COMPARING = 2**20  # bytes of a peak: a counter or two are no memory
_ALWAYS = ("live", "model states", "allocated", "peak")


def show_answer(sizing: Sizing, checks: Sequence[Crosscheck]) -> None:
    """Print the verdict, where a GPU was stated, and every check."""
    if sizing.job.cluster.gpu_memory is not None:
        show_verdict(sizing)
        show_job(sizing)
        print()
    show_all(checks)


def print_answer(sizing: Sizing, checks: Sequence[Crosscheck]) -> None:
    """Print the verdict and all checks, as one, as JSON."""
    joined = Crosscheck(
        rows=tuple(row for check in checks for row in check.rows),
        differences=tuple(item for check in checks for item in check.differences),
        causes=tuple(cause for check in checks for cause in check.causes),
        notes=tuple(note for check in checks for note in check.notes),
    )
    verdict = {
        "verdict": sizing.verdict.value,
        "reasons": [reason_mapping(reason) for reason in sizing.reasons],
    }
    print_document({**verdict, **joined.to_json()})


def show_all(checks: Sequence[Crosscheck]) -> None:
    """Print every check; dry runs, which have the same rows, side by side."""
    runs = [check for check in checks if any(row.rank is not None for row in check.rows)]
    if len(runs) < 2:
        runs = []
    _show_summary([row for check in checks for row in check.rows])
    for check in checks:
        if check not in runs:
            show(check)
    if not runs:
        return
    _side_by_side([row for check in runs for row in check.rows if _is_worth_showing(row)])
    for check in runs:
        _show_causes(check.causes)
    for note in dict.fromkeys(note for check in runs for note in check.notes):
        show_line(f"note: {note}")


def _show_summary(rows: Sequence[Row]) -> None:
    """One sentence: how far the prediction is from what ran, and what the other rows are."""
    runs = [row for row in rows if row.rank is not None and row.quantity == "peak"]
    peaks = [row for row in runs if row.witnessed >= _WORTH_COMPARING]
    errors = [(abs(row.error), row) for row in peaks if row.error is not None]
    if errors:
        worst, row = max(errors, key=lambda found: found[0])
        show_line(
            f"The reference is what ran ({row.witness}): predicted peaks are within "
            f"{worst:.2%} of it, the furthest on the {row.device} in {row.phase}."
        )
    if any(row.witness == "helpers" for row in rows):
        show_line(
            "DeepSpeed's helpers count model states alone: compare those; no run is as small as "
            "their figure for its peak."
        )
    if rows:
        print()


def _side_by_side(rows: Sequence[Row]) -> None:
    """One line per quantity and prediction; of each witness the rank furthest off."""
    witnesses = list(dict.fromkeys(row.witness for row in rows))
    table: dict[tuple[str, str, str, int], dict[str, Row]] = {}
    for row in rows:
        cells = table.setdefault((row.device, row.phase, row.quantity, row.predicted), {})
        before = cells.get(row.witness)
        if before is None or abs(row.predicted - row.witnessed) > abs(
            before.predicted - before.witnessed
        ):
            cells[row.witness] = row
    pairs = tuple(head for name in witnesses for head in (name, "error"))
    heads = ("device", "phase", "what", "predicted", *pairs)
    lines = []
    for (device, phase, quantity, predicted), cells in sorted(table.items(), key=_place):
        found = [_cells(cells[name])[-2:] if name in cells else ("", "") for name in witnesses]
        lines.append(
            (device, phase, quantity, format_gib(predicted), *(t for pair in found for t in pair))
        )
    show_table(heads, lines, right=range(3, len(heads)))


def _place(item: tuple[tuple[str, str, str, int], object]) -> tuple[bool, int, str]:
    """Peaks last, then by phase and device; the rest stays as found."""
    device, phase, quantity, _ = item[0]
    return quantity == "peak", list(BOUNDARIES).index(phase), device


def _show_causes(causes: Sequence[Cause]) -> None:
    if not causes:
        return
    print(f"\nBehind the largest differences from {causes[0].row.witness}:")
    for cause in causes:
        row = cause.row
        gap = row.predicted - row.witnessed
        sign = "-" if gap < 0 else "+"
        what = f"{row.device}, {row.phase}, {row.quantity}, rank {row.rank}"
        print(f"  {what}: {sign}{format_gib(abs(gap))}")
        print(f"    ledger: {_named(cause.entries)}")
        if cause.seen:
            print(f"    {row.witness}: {_named(cause.seen)}")


def _named(parts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {format_gib(size)}" for name, size in parts.items()) or "nothing"


def show(check: Crosscheck) -> None:
    """Print the rows (of each quantity the rank furthest off), then the reasons and notes."""
    rows = [row for row in worst_ranks(check.rows) if _is_worth_showing(row)]
    heads = ("witness", "device", "phase", "what", "predicted", "witnessed", "error")
    witnesses = {row.witness for row in rows}
    own = len(witnesses) != 1  # a column of one word would only widen the table
    if not own:
        print(f"witness: {witnesses.pop()}")
    table = [_cells(row)[not own :] for row in rows]
    show_table(heads[not own :], table, right=range(3 + own, 6 + own))
    if check.differences:
        print("\nPredicted minus helper, part by part:")
        show_table(("", "", ""), _reasons(check.differences), right=(1,))
    _show_causes(check.causes)
    for note in check.notes:
        show_line(f"note: {note}")


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
