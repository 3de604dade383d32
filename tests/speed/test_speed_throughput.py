"""The step-time model against real runs, and against what must hold of any such model."""

import sys

import pytest
from repository.test_house import ROOT

from zero_sizer.hardware import catalog
from zero_sizer.speed.rates import table

sys.path.insert(0, str(ROOT / "benchmarks"))
import cross_validation
import holdout
import throughput

MEDIAN, NINTH = 0.05, 0.12  # what errors of runs left out may be: median, 90th percentile


@pytest.fixture(scope="module")
def measured():
    return throughput.results(throughput.read())


@pytest.fixture(scope="module")
def runs():
    return cross_validation.runs()


def test_shapes_have_the_published_number_of_parameters():
    facts = throughput.read()
    for row in facts["rows"]:
        assert throughput.mpt(row["model"], row["seq_len"], facts).num_params == row["params"]


def test_runs_are_ranked_as_measured(measured):
    assert len(measured) == 108
    assert throughput.rank_correlation(measured) >= 0.99


def test_median_error_is_small_on_every_gpu_and_precision(measured):
    for gpu, precision in {(r.row["gpu"], r.row["precision"]) for r in measured}:
        found = [r for r in measured if (r.row["gpu"], r.row["precision"]) == (gpu, precision)]
        assert throughput.median_error(found) <= MEDIAN, (gpu, precision)


def test_measured_runs_lie_within_the_interval(measured):
    outside = [r.row["id"] for r in measured if not r.predicted[0] <= r.measured <= r.predicted[2]]
    assert not outside


@pytest.mark.parametrize("group", cross_validation.GROUPS)
def test_runs_left_out_are_predicted(runs, group):
    errors = cross_validation.left_out(runs, cross_validation.GROUPS[group])
    assert len(errors) > 1
    median, ninth, _ = cross_validation.summary([e for found in errors.values() for e in found])
    assert median <= MEDIAN
    assert ninth <= NINTH


def test_each_gpu_left_out_is_predicted_by_the_others(runs):
    errors = cross_validation.left_out(runs, cross_validation.GROUPS["GPU"])
    for gpu, found in errors.items():
        median, ninth, _ = cross_validation.summary(found)
        assert (median <= MEDIAN, ninth <= NINTH) == (True, True), gpu


def test_runs_of_several_nodes_are_predicted_by_those_of_one(runs):
    inside = cross_validation.fit(run for run in runs if run.row["gpus"] <= 8)
    median, ninth, _ = cross_validation.summary(
        [run.error(inside) for run in runs if run.row["gpus"] > 8]
    )
    assert median <= MEDIAN
    assert ninth <= NINTH


def test_committed_constants_are_those_of_the_fit(runs):
    """To the digits that rates.json states."""
    fitted = cross_validation.as_rates(cross_validation.fit(runs))
    stated = cross_validation.as_rates(cross_validation.committed())
    assert stated == pytest.approx(fitted, rel=0.03)


def test_a_run_is_linear_in_the_constants(runs):
    """What the fit rests on: the model itself gives the seconds that the linear form gives."""
    committed = cross_validation.committed()
    results = throughput.results(throughput.read())
    for run, result in zip(runs, results, strict=True):
        assert run.error(committed) == pytest.approx(result.error)


def test_runs_held_out_are_predicted():
    """Other frameworks' runs: of those with the kernels that are known, half are within 5 %."""
    found, stated = holdout.results(), holdout.results(is_stated=True)
    inside = [r for r in found if r.predicted[0] <= r.measured <= r.predicted[2]]
    assert len(inside) >= len(found) - 1
    assert throughput.median_error(stated) <= MEDIAN
    assert throughput.rank_correlation(stated) >= 0.9


def test_held_out_runs_name_their_sources_and_what_they_leave_open():
    facts = holdout.read()
    for row in facts["rows"]:
        assert row["source"] in facts["sources"]
        assert set(row["assumed"]) <= set(row)
        catalog.find(row["gpu"])


def test_deepspeeds_own_runs_come_in_order_and_inside():
    """Only host memory's rate was taken from them; plain training loops lie near the slow end."""
    found = throughput.deepspeed_results()
    assert all(r.predicted[0] <= r.measured <= r.predicted[2] for r in found)
    assert throughput.rank_correlation(found) >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("bench", [throughput, cross_validation])
def test_committed_tables_are_current(bench):
    assert bench.whole_text() in throughput.DOC.read_text(encoding="utf-8")


def test_fitted_constants_are_in_the_table():
    for name, _, _ in cross_validation.FITTED:
        assert "foundry" in table()[name]["sources"]
