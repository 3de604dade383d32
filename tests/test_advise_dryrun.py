"""The real engine, on a simulated GPU, stays within what was predicted for an emitted config."""

import pytest
from advise_jobs import job_on

from zero_sizer import sizing
from zero_sizer.advise.choose import Options, choose
from zero_sizer.plan import Device

WANTED = ("ZeRO-2", "ZeRO-3", "ZeRO-3, optimizer on host")


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_dry_run_of_an_emitted_config_stays_within_the_predicted_peak(checkpointing):
    from zero_sizer.witnesses.simulated import run

    wanted = job_on(
        "gpt2", "a10g-24gb", gpus=4, seq_len=512, checkpointing=checkpointing, attention="sdpa"
    )
    choice = choose(wanted, Options(train_batch=16))
    emitted = [plan for plan in choice.ranked if plan.strategy.name in WANTED]
    assert len(emitted) == len(WANTED)
    for plan in emitted:
        job = choice.search.job_of(plan)
        predicted = sizing.size(job).peaks[Device.GPU].num_bytes
        measured = run(job).first.peak()["gpu"]
        assert measured <= predicted * 1.02, plan.strategy.name
