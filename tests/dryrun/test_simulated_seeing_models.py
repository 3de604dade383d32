"""Qwen-VL and LLaVA as their families answer, by attention and precision, beside the engine.

Widths, images and windows are such that no family was traced at; ``benchmarks/other_models.py`` has
real models.
"""

import json

import pytest
from dryrun.test_simulated_other_models import MODELS

from zero_sizer.dryrun.simulated import run_requests
from zero_sizer.dryrun.simulated.parent import request_of
from zero_sizer.hardware.device import Device
from zero_sizer.job.fields import Flags
from zero_sizer.job.read import read
from zero_sizer.sizing import size

pytestmark = pytest.mark.slow

TOWER = {"depth": 3, "embed_dim": 160, "num_heads": 4, "mlp_ratio": 4, "hidden_size": 256}
SEEING = {
    "llava": MODELS["llava"],
    "qwen2.5-vl": {**MODELS["qwen2.5-vl"], "tie_word_embeddings": False},
    "qwen2-vl": {
        **MODELS["qwen2.5-vl"],
        "model_type": "qwen2_vl",
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "vision_config": TOWER,
        "tie_word_embeddings": False,
    },
}
IMAGES = {"llava": "1", "qwen2.5-vl": "2,size=140x196", "qwen2-vl": "3,size=112x140"}
PRECISIONS = {
    "bf16": {"bf16": {"enabled": True}},
    "fp32": {},
    "autocast": {"torch_autocast": {"enabled": True, "dtype": "bfloat16"}},
}
UNTRACED = {("qwen2.5-vl", "fp32"), ("qwen2.5-vl", "autocast"), ("qwen2.5-vl", "eager")}
UNTRACED |= {("llava", "eager")}
# precision, attention, stage, samples, activation checkpointing
RUNS = [
    ("bf16", "sdpa", 0, 1, False),
    ("bf16", "sdpa", 3, 3, True),
    ("bf16", "eager", 3, 4, True),
    ("fp32", "sdpa", 2, 2, False),
    ("autocast", "sdpa", 1, 3, True),
    ("autocast", "sdpa", 3, 2, False),
]


ASKED = [
    (name, run)
    for name in SEEING
    for run in RUNS
    if not {(name, word) for word in run[:2]} & UNTRACED
]


def job_of(model, images, run):
    precision, attention, stage, batch, checkpointing = run
    config = {
        **PRECISIONS[precision],
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-4}},
        # small buckets, so that activations count
        "zero_optimization": {"stage": stage, "reduce_bucket_size": 100_000},
        "train_micro_batch_size_per_gpu": batch,
    }
    said = {"checkpointing": checkpointing, "attention": attention, "images": images}
    cluster = {"gpus_per_node": 4, "gpu": "a100-80gb"}
    return read(config, Flags(model=model, sequences="equal", seq_len=320, **cluster, **said))


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """(model, run) -> the sizing, and the recording of the rank that it is about."""
    for package in ("transformers", "deepspeed"):
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("seeing")
    found, requests = {}, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))  # nothing was traced
        for name, fields in SEEING.items():
            (folder / f"{name}.json").write_text(json.dumps(fields))
            for run in (run for asked, run in ASKED if asked == name):
                job = job_of(str(folder / f"{name}.json"), IMAGES[name], run)
                sizing = size(job)
                found[name, run] = sizing
                requests.append(request_of(job, rank=sizing.plan.rank, steps=2))
    return dict(zip(found, zip(found.values(), run_requests(requests), strict=True), strict=True))


@pytest.mark.parametrize(("name", "run"), ASKED, ids=str)
def test_the_peak_of_the_family_is_the_simulated_one(answers, name, run):
    sizing, recording = answers[name, run]
    codes = {finding.code for finding in sizing.findings}
    assert not codes & {"activations-in-closed-form", "inputs-not-modelled"}
    predicted = sizing.peaks[Device.GPU].num_bytes
    assert predicted == pytest.approx(recording.first.peak()["gpu"], rel=0.005)
