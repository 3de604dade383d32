"""The losses of ``loss_models`` under the simulated engine, beside the ledger."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from zero_sizer import models
from zero_sizer.config import document
from zero_sizer.config.workload import Workload
from zero_sizer.dryrun.truncate import cut_job
from zero_sizer.hardware.cluster import Cluster
from zero_sizer.hardware.device import Device
from zero_sizer.job.read import Job
from zero_sizer.ledger.entries import ENTRIES
from zero_sizer.ledger.entry import evaluate
from zero_sizer.ledger.moments import Phase
from zero_sizer.ledger.peak import phase_peaks, totals
from zero_sizer.sizing import size

pytest.importorskip("deepspeed")
pytestmark = pytest.mark.slow

from zero_sizer.dryrun.simulated import run_requests  # noqa: E402
from zero_sizer.dryrun.simulated.parent import request_of  # noqa: E402

LAYERS = 4  # of loss_models
ROOT = Path(__file__).parents[2]
PYTHONPATH = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")])
NOT_SIMULATED = {"cublas_workspace"}  # fake tensors never call the library
NAMES = {"tied": "smollm2-135m", "untied": "tinyllama-1.1b"}
NO_REUSE = {"stage3_max_reuse_distance": 0, "stage3_prefetch_bucket_size": 10**6}
JOBS = [  # head, loss, stage, checkpointing, is it bf16, more of zero_optimization
    ("tied", "fused", 1, False, True, {}),
    ("untied", "fused", 3, True, True, {}),
    ("untied", "megatron", 1, False, True, {}),
    ("tied", "transformers-16bit", 1, False, True, {}),
    ("untied", "transformers-16bit", 3, True, True, {}),
    ("tied", "fused-linear", 3, False, True, {**NO_REUSE, "stage3_param_persistence_threshold": 0}),
    ("untied", "fused-linear", 1, True, False, {}),
    ("untied", "fused-linear", 3, True, True, {}),
]


def _job(head, kind, stage, checkpointing, bf16, zero):
    config = {
        "train_micro_batch_size_per_gpu": 4,
        "bf16": {"enabled": bf16},
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-4}},
        "zero_optimization": {"stage": stage, "reduce_bucket_size": 10**7, **zero},
    }
    workload = {"seq_len": 1024, "attention": "sdpa", "sequences": "equal", "loss": kind}
    job = Job(
        document=document.from_mapping(config),
        model=models.load(NAMES[head]),
        cluster=Cluster(nodes=1, gpus_per_node=4, origins={}),
        workload=Workload(**workload, checkpointing=checkpointing, zero_init=stage == 3),
        origins={},
    )
    return cut_job(job, LAYERS)


def _request(job, head, kind):
    own = replace(job, workload=replace(job.workload, loss=None))
    factory = f"loss_models:{head}_{kind.replace('-', '_')}"
    return replace(request_of(own, rank=0, steps=2), hf_config={}, factory=factory)


@pytest.fixture(scope="module")
def runs():
    """Recordings of all jobs, from one process."""
    patch = pytest.MonkeyPatch()
    patch.setenv("PYTHONPATH", PYTHONPATH)
    found = run_requests([_request(_job(*said), *said[:2]) for said in JOBS])
    patch.undo()
    assert not [str(run) for run in found if isinstance(run, Exception)]
    return found


def test_ledger_and_simulated_engine_agree(runs):
    """GPU, forward, backward and step: within 0.1 %."""
    wrong = []
    for said, run in zip(JOBS, runs, strict=True):
        plan = replace(size(_job(*said)).plan, rank=0)
        found = evaluate(ENTRIES, plan, explain=False)
        moments = totals([a for a in found if a.name not in NOT_SIMULATED], 1)[Device.GPU]
        for phase in (Phase.FORWARD, Phase.BACKWARD, Phase.STEP):
            records = [record for record in run.ranks[0].phases if record.name == phase.value]
            seen, predicted = (
                records[-1].device["gpu"]["max_allocated"],
                phase_peaks(moments)[phase],
            )
            if abs(predicted - seen) > 0.001 * seen:
                wrong.append(f"{said} {phase.value}: {predicted:,}, not {seen:,}")
    assert not wrong, "\n".join(wrong)
