"""Vision-language models whose tower is frozen, as LLaMA-Factory does, beside the engine."""

import pytest

from zero_sizer.dryrun.simulated import run_requests
from zero_sizer.dryrun.simulated.parent import request_of
from zero_sizer.dryrun.truncate import cut_job
from zero_sizer.hardware.device import Device
from zero_sizer.job.fields import Flags
from zero_sizer.job.read import read
from zero_sizer.sizing import size

pytestmark = pytest.mark.slow

SEEN = {"images": "1,size=448x672", "attention": "sdpa", "checkpointing": False}
JOBS = {  # model, its layers where it is cut, what is frozen, how it runs
    "Qwen2.5-VL": ("qwen2.5-vl-3b", None, "*visual*", SEEN),
    "recomputed": ("qwen2-vl-2b", 6, "*visual*", {**SEEN, "checkpointing": True}),
    "blocks alone": ("qwen2-vl-2b", 6, "*visual.blocks*", {**SEEN, "attention": "flash"}),
    "LLaVA": ("llava-1.5-7b", None, "*vision*", {**SEEN, "images": "1"}),
}
CONFIG = {
    "bf16": {"enabled": True},
    "optimizer": {"type": "AdamW", "params": {"lr": 1e-5}},
    "zero_optimization": {"stage": 3},
    "train_micro_batch_size_per_gpu": 4,
}


@pytest.fixture(scope="module")
def answers():
    """Name -> the sizing, and the recording of the rank that it is about."""
    pytest.importorskip("transformers")
    cluster = {"gpus_per_node": 8, "gpu": "h200-141gb", "seq_len": 1024, "sequences": "equal"}
    jobs = [
        cut_job(read(CONFIG, Flags(model=model, freeze=frozen, **cluster, **said)), layers)
        for model, layers, frozen, said in JOBS.values()
    ]
    sizings = [size(job) for job in jobs]
    asked = zip(jobs, sizings, strict=True)
    found = run_requests([request_of(job, rank=s.plan.rank, steps=2) for job, s in asked])
    return dict(zip(JOBS, zip(sizings, found, strict=True), strict=True))


@pytest.mark.parametrize("name", JOBS)
def test_nothing_of_a_frozen_tower_is_kept(answers, name):
    """Trained, Qwen2.5-VL's holds 12 GiB here that are not there."""
    sizing, recording = answers[name]
    peak = recording.first.peak()["gpu"]
    assert sizing.peaks[Device.GPU].num_bytes == pytest.approx(peak, rel=0.005)
