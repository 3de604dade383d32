"""What ``check`` answers, no rank named, beside the highest of all simulated ranks.

The benchmark draws hundreds of such jobs; here stand a few that were once answered wrongly.
"""

import pytest
from test_simulated_parity import PARITY

from zero_sizer import models
from zero_sizer.config import document
from zero_sizer.config.workload import Workload
from zero_sizer.hardware.cluster import Cluster
from zero_sizer.job import Job
from zero_sizer.witnesses.cut import cut_job

pytestmark = pytest.mark.slow

HOST = {"offload_optimizer": {"device": "cpu"}}
JOBS = {  # what: ranks, precision, zero_optimization
    "built whole, the partition of a tensor beside it": (1, "fp32", {"stage": 3}),
    "built whole, the optimizer on the host": (2, "bf16", {"stage": 3, **HOST}),
    "built whole, weights on the host": (
        2,
        "bf16",
        {"stage": 3, **HOST, "offload_param": {"device": "cpu"}},
    ),
}


def case_of(name):
    ranks, precision, zero = JOBS[name]
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-4}},
        "zero_optimization": zero,
        **({precision: {"enabled": True}} if precision != "fp32" else {}),
    }
    job = Job(
        document=document.from_mapping(config),
        model=models.load("smollm2-135m"),
        cluster=Cluster(nodes=1, gpus_per_node=ranks, origins={}),
        workload=Workload(seq_len=64, checkpointing=False, attention="sdpa", zero_init=False),
        origins={},
    )
    return PARITY.Case(name, cut_job(job, 2), name)


def test_the_answer_is_that_of_the_highest_rank():
    cases = list(PARITY.asked(map(case_of, JOBS)))
    for (case, requests), answer in zip(cases, PARITY.simulate(cases), strict=True):
        assert "simulated" in answer, (case.name, answer)
        entry = PARITY.entry_of(case, requests, answer)
        for device, phase, error in PARITY.errors_of(entry):
            assert abs(error) <= 0.005, (case.name, device, phase, error)
