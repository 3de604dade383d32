"""The real engine, on a simulated GPU, stays within what was predicted for an emitted config."""

import tempfile

import pytest
from support.advise_jobs import job_on

from zero_sizer import sizing
from zero_sizer.advise.choose import Options, choose
from zero_sizer.hardware.device import Device

PLAIN = {
    "no ZeRO",
    "ZeRO-2",
    "ZeRO-3, hpZ",
    "ZeRO-2, optimizer on host",
    "ZeRO-3, all on host",
    "ZeRO-3, all on NVMe",
    "ZeRO-3, weights on host",
    "ZeRO-3, optimizer on host, weights on NVMe",
}
CHECKPOINTED = {
    "ZeRO-1",
    "ZeRO-3",
    "ZeRO-3, optimizer on host",
    "ZeRO-3, optimizer on NVMe, weights on host",
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "gpu", "names"),
    [("gpt2", "a10g-24gb", PLAIN), ("llama-3.2-1b", "a100-40gb", CHECKPOINTED)],
)
def test_dry_runs_of_emitted_configs_stay_within_the_predicted_peak(model, gpu, names):
    """Two layers on two nodes of two GPUs; each config is written as ``--emit`` would."""
    from zero_sizer.dryrun.simulated import run_requests
    from zero_sizer.dryrun.simulated.parent import request_of
    from zero_sizer.dryrun.truncate import cut_job

    flags = {"seq_len": 256, "checkpointing": names is CHECKPOINTED, "attention": "sdpa"}
    wanted = cut_job(job_on(model, gpu, nodes=2, gpus=2, nvme="7TB", **flags), 2)
    choice = choose(wanted, Options(train_batch=32))
    plans = [plan for plan in choice.ranked if plan.strategy.name in names]
    assert len(plans) == len(names)
    jobs = [choice.search.job_of(plan) for plan in plans]
    with tempfile.TemporaryDirectory() as swap:
        requests = [request_of(job, rank=0, steps=2, nvme_path=swap) for job in jobs]
        recordings = run_requests(requests)
    for plan, job, recording in zip(plans, jobs, recordings, strict=True):
        if isinstance(recording, Exception):
            raise recording
        predicted = sizing.size(job).peaks[Device.GPU].num_bytes
        measured = recording.first.peak()["gpu"]
        assert measured <= predicted * 1.02, (plan.strategy.name, measured, predicted)
