"""Published runs: none that ran is refused, none that ran out of memory is called a fit.

``pytest -s tests/crosscheck/test_published_outcomes.py`` shows the table.
"""

import json
import sys

import pytest
from support import published, published_outcomes

from zero_sizer.sizing import Verdict

OUTCOMES = published_outcomes.outcomes()
RAN = [row for row in OUTCOMES if row.ran]
DIED = [row for row in OUTCOMES if not row.ran]
MODELLED = [row for row in RAN if not row.not_modelled]


def _ids(rows):
    return pytest.mark.parametrize("row", rows, ids=lambda row: row.id)


def test_every_run_is_there_once():
    ids = [row.id for row in OUTCOMES]
    assert len(set(ids)) == len(ids)
    assert len(RAN) >= 250
    assert len(DIED) >= 9


@pytest.mark.slow
def test_a_throughput_run_has_the_published_number_of_parameters():
    facts = json.loads((published.DATA / "throughput.json").read_text())
    params = {row["id"]: row["params"] for row in facts["rows"]}
    for row in OUTCOMES:
        if row.id in params:
            assert row.sizing().job.model.num_params == params[row.id], row.id


@pytest.mark.slow
@_ids(RAN)
def test_what_ran_is_not_called_too_large(row):
    sizing = row.sizing()
    assert sizing.plan is not None
    assert sizing.verdict is not Verdict.DOES_NOT_FIT, published_outcomes.table([row])


@pytest.mark.slow
def test_limits_show_how_the_verdicts_stand():
    assert published_outcomes.summary() in published.LIMITS.read_text()


@pytest.mark.slow
@_ids(DIED)
def test_what_ran_out_of_memory_is_not_called_a_fit(row):
    assert row.sizing().verdict is not Verdict.FITS, published_outcomes.table([row])


@pytest.mark.slow
def test_nineteen_of_twenty_that_ran_fit_or_the_missing_fact_is_named():
    unsettled = [row for row in MODELLED if not published_outcomes.is_settled(row.sizing())]
    sys.stdout.write("\n" + published_outcomes.table(unsettled) + "\n")
    assert len(unsettled) <= 0.05 * len(MODELLED), [row.id for row in unsettled]


@pytest.mark.slow
@_ids([row for row in RAN if row.not_modelled])
def test_a_feature_that_is_not_modelled_says_in_which_direction_it_counts(row):
    sizing = row.sizing()
    is_told = published_outcomes.is_settled(sizing) or published_outcomes.directions(sizing)
    assert is_told, published_outcomes.table([row])


def test_no_row_is_both_used_and_left_out_or_entered_twice():
    used = {row["id"] for group in published_outcomes.read()["jobs"] for row in group["rows"]}
    left_out = [i for ids in published_outcomes.read()["left_out"].values() for i in ids]
    assert len(left_out) == len(set(left_out))
    assert not used & set(left_out)
    assert not used & {row.fields.get("published", row.id) for row in published.rows()}
