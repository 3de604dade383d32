"""One rank with silent peers against the same rank among real ones: live bytes are equal."""

import pytest
from simulated_jobs import HOST, config_of, job_for, tiny_llama

from zero_sizer.errors import InputError
from zero_sizer.witnesses import launched, solo
from zero_sizer.witnesses.launched.task import rank_task

pytestmark = pytest.mark.slow

ZERO = {
    "stage 2": {"stage": 2, "reduce_bucket_size": 20_000},
    "stage 3, optimizer on host": {
        "stage": 3,
        "offload_optimizer": HOST,
        "reduce_bucket_size": 20_000,
    },
}


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    return tiny_llama(tmp_path_factory.mktemp("model"))


def test_solo_equals_launched_on_both_ranks(spec):
    jobs = {name: job_for(config_of(zero), spec, 2) for name, zero in ZERO.items()}
    real = launched.run_tasks([rank_task(job) for job in jobs.values()], ranks=2)
    for (name, job), records in zip(jobs.items(), real, strict=True):
        for rank, expected in enumerate(records):
            found = solo.run(job, rank=rank).first
            for a, b in zip(expected.phases, found.phases, strict=True):
                owned = [phase.num_bytes() - phase.num_bytes("other") for phase in (a, b)]
                assert owned[0] == owned[1], (name, rank, a.name)


def test_a_rank_that_is_not_there_is_refused(spec):
    with pytest.raises(InputError, match="no rank 2 among 2"):
        solo.run(job_for(config_of(ZERO["stage 2"]), spec, 2), rank=2)
