"""Published measurements: printed beside the prediction, and no error may grow unseen.

``pytest -s tests/crosscheck/test_published.py`` shows the tables. After a change that moves a
prediction for a good reason: ``python scripts/refresh_published.py``.
"""

import json
import sys
from decimal import Decimal

import pytest
from support import published

from zero_sizer.units import GIB

ALLOWED_GROWTH = 0.5  # percentage points
ROWS = published.rows()
MEASURED = [row for row in ROWS if not row.is_outcome]
COMMITTED = json.loads(published.ERRORS.read_text())


def test_every_measurement_has_a_committed_error_and_no_other():
    ids = [row.id for row in MEASURED]
    assert len(set(ids)) == len(ids)
    assert set(COMMITTED) == set(ids)


def test_limits_show_the_committed_errors():
    assert published.error_table(COMMITTED) in published.LIMITS.read_text()


@pytest.mark.slow
def test_table_of_errors_is_printed():
    sys.stdout.write("\n" + published.table() + "\n")
    worst = max(abs(error) for error in published.errors().values())
    assert worst < 100, "a prediction of nothing, or of twice the measurement"


@pytest.mark.slow
@pytest.mark.parametrize("row", MEASURED, ids=lambda row: row.id)
def test_no_error_grows(row):
    error = published.error_percent(row)
    assert abs(error) <= abs(COMMITTED[row.id]) + ALLOWED_GROWTH, row.fields.get("why")


@pytest.mark.slow
@pytest.mark.parametrize(
    "row", [row for row in MEASURED if row.fields.get("exact")], ids=lambda row: row.id
)
def test_exact_rows_are_met_to_the_printed_digit(row):
    (num_bytes, _) = published.predicted(row)
    places = -Decimal(str(row.fields["value"])).as_tuple().exponent
    assert round(num_bytes / GIB, places) == row.fields["value"]
    assert row.fields["unit"] == "GiB"


@pytest.mark.slow
def test_large_errors_have_a_reason():
    """Beyond 2 %, the reason is named, or the row says that it is unexplained."""
    silent = [
        row.id
        for row in MEASURED
        if abs(published.error_percent(row)) > 2
        and not (row.fields.get("exact") or row.fields.get("why") or row.job.get("why"))
    ]
    assert not silent


def test_no_published_row_is_both_used_and_left_out():
    used = {row.fields.get("published", row.id) for row in ROWS}
    left_out = [i for ids in published.read()["left_out"].values() for i in ids]
    assert len(left_out) == len(set(left_out))
    assert not used & set(left_out)
