"""Inference beside the simulated run: transformers' generate, and DeepSpeed's engine at stage 3.

Most jobs are cut to a few blocks; ``benchmarks/inference_parity.py`` draws more, whole ones too.
"""

import random

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


@pytest.mark.parametrize(("seed", "zero"), [(3, False), (4, True)])
def test_a_few_jobs(seed, zero):
    found = errors(seed, 5, zero=zero)
    assert {name: error for name, error in found.items() if abs(error) > 0.005} == {}


@pytest.mark.slow
def test_many_jobs():
    found = errors(1, 30, zero=False)
    assert {name: error for name, error in found.items() if abs(error) > benchmark.LIMIT} == {}


@pytest.mark.slow
def test_many_jobs_of_zero_inference():
    """Decode is left out: what small buckets prefetch is open (docs/inference.md)."""
    found = errors(1, 16, zero=True)
    counted = {name: error for name, error in found.items() if not name.endswith("decode")}
    assert {name: error for name, error in counted.items() if abs(error) > benchmark.LIMIT} == {}
