"""Inference beside the simulated run: transformers' generate, and DeepSpeed's engine at stage 3.

Most jobs are cut to a few blocks; ``benchmarks/inference_parity.py`` draws more, whole ones too.
"""

import random
import re

import inference_parity as benchmark
import pytest

from zero_sizer.dryrun.truncate import cut_job

LAYERS = 5


def errors(seed: int, jobs: int, *, zero: bool) -> dict[str, float]:
    drawn = random.Random(seed)
    found = [benchmark.draw(drawn, zero=zero) for _ in range(jobs)]
    cut = [(name, cut_job(job, LAYERS)) for name, job in found]
    rows = list(benchmark.compare(cut))
    assert len({row.job for row in rows}) >= jobs - 1, "hardly any is refused"
    return {f"{row.job}, {row.phase}": row.error for row in rows}


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "zero"), [(3, False), (4, True)])
def test_a_few_jobs(seed, zero):
    found = errors(seed, 5, zero=zero)
    assert {name: error for name, error in found.items() if abs(error) > 0.005} == {}


@pytest.mark.slow
def test_many_jobs():
    found = errors(1, 10, zero=False)
    assert {name: error for name, error in found.items() if abs(error) > benchmark.LIMIT} == {}


@pytest.mark.slow
def test_many_jobs_of_zero_inference():
    """Several requests: what stays gathered comes in the second forward, later ones prefetch."""
    found = errors(6, 10, zero=True)
    assert any("nvme" in name for name in found)
    assert any(name.endswith("on host") for name in found)
    assert {name: error for name, error in found.items() if abs(error) > benchmark.LIMIT} == {}


def test_the_committed_tables_are_within_the_limit():
    """30 or 60 jobs each; written by the benchmark, and looked at when it is."""
    _, *tables = benchmark.PAGE.read_text("utf-8").split("\n## ")
    assert len(tables) == 4
    for table in tables:
        rows = re.findall(r"^\| ([^*|]+) \| (.*%.*) \|$", table, re.MULTILINE)
        errors = [float(error) for _, cells in rows for error in re.findall(r"([-+.\d]+)%", cells)]
        (jobs,) = re.findall(r"--jobs (\d+)", table)
        assert len(rows) >= 0.95 * int(jobs) >= 28, "hardly any is refused"
        assert max(map(abs, errors)) <= 100 * benchmark.LIMIT
