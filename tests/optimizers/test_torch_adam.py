"""Which of torch's Adam implementations runs, and what each materialises in a step."""

from dataclasses import replace

import pytest
from support.plans import equal_tensors, ledger_of, make_plan

from zero_sizer.ledger.moments import Moment

SPEC = equal_tensors(4000, 8)


def temporaries(stage, params, **more):
    config = {
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-3, "torch_adam": True, **params}},
        "zero_optimization": {"stage": stage},
        **more,
    }
    found = ledger_of(make_plan(config, SPEC, 4))
    return sum(a.num_bytes for a in found if a.name == "optimizer_update_temporaries")


@pytest.mark.parametrize(
    ("params", "copies"), [({}, 1), ({"foreach": True}, 1), ({"foreach": False}, 2)]
)
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_partition_is_one_tensor(stage, params, copies):
    assert temporaries(stage, params, bf16={"enabled": True}) == copies * 4 * 1000


@pytest.mark.slow
def test_without_zero_the_loop_holds_one_tensor_and_the_last_foreach_all():
    assert temporaries(0, {"foreach": False}) == 3 * 4 * 500
    assert temporaries(0, {}) == 4 * 4000


def test_fused_materialises_nothing():
    assert temporaries(2, {"fused": True}, bf16={"enabled": True}) == 0


@pytest.mark.slow
def test_the_loop_holds_what_the_engine_holds():
    """Step peaks of the real engine on a simulated GPU, stage 0 in fp32 and stage 2 in bf16."""
    from support.advise_jobs import job_on

    from zero_sizer import sizing
    from zero_sizer.config import document
    from zero_sizer.dryrun.simulated import run_requests
    from zero_sizer.dryrun.simulated.parent import request_of
    from zero_sizer.dryrun.truncate import cut_job
    from zero_sizer.hardware.device import Device

    wanted = cut_job(job_on("gpt2", "a10g-24gb", gpus=4, seq_len=64, checkpointing=True), 2)
    jobs = []
    for stage, more in ((0, {}), (2, {"bf16": {"enabled": True}})):
        params = {"lr": 1e-3, "torch_adam": True, "foreach": False}
        config = {
            "train_micro_batch_size_per_gpu": 1,
            "optimizer": {"type": "AdamW", "params": params},
            "zero_optimization": {"stage": stage},
            **more,
        }
        jobs.append(replace(wanted, document=document.from_mapping(config)))
    recordings = run_requests([request_of(job, rank=0, steps=2) for job in jobs])
    for job, recording in zip(jobs, recordings, strict=True):
        step = [p for p in recording.first.phases if p.name == "step"][-1]
        allocations = ledger_of(sizing.size(job).plan, rank=0)
        predicted = sizing.totals(allocations, 1)[Device.GPU]
        highest = max(predicted[m] for m in Moment if m.phase.value == "step")
        workspace = 9 * 2**20  # cuBLAS's, which the ledger has apart from the step
        assert abs(step.device["gpu"]["max_allocated"] - highest) < workspace
