"""CLIP, SigLIP and Qwen3-VL: the ledger, by their families' profiles, beside the real engine."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from support.plans import make_job
from support.simulated_jobs import config_of

from zero_sizer import activations, models
from zero_sizer.activations import select
from zero_sizer.crosscheck import compare
from zero_sizer.errors import ZeroSizerError
from zero_sizer.models.feeds import feed_of
from zero_sizer.models.feeds.records import Images, Said
from zero_sizer.sizing import size

pytest.importorskip("deepspeed")
pytest.importorskip("transformers")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

ROOT = Path(__file__).parents[2]
PYTHONPATH = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")])
LIMIT = 0.001
TOWER = {"num_hidden_layers": 4, "num_attention_heads": 6, "intermediate_size": 1544}
TWO = {
    "text_config": {**TOWER, "hidden_size": 384, "vocab_size": 3000},
    "vision_config": {**TOWER, "hidden_size": 480, "image_size": 160},
}
QWEN3 = {
    "architectures": ["Qwen3VLForConditionalGeneration"],
    "model_type": "qwen3_vl",
    "image_token_id": 7,
    "vision_start_token_id": 8,
    "vision_end_token_id": 9,
    "text_config": {
        "hidden_size": 512,
        "intermediate_size": 1536,
        "num_hidden_layers": 7,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 128,
        "vocab_size": 3000,
    },
    "vision_config": {
        "depth": 9,
        "hidden_size": 320,
        "intermediate_size": 1280,
        "num_heads": 4,
        "out_hidden_size": 512,
        "deepstack_visual_indexes": [1, 3, 6],
    },
}
SIGLIP = json.loads(json.dumps(TWO))
SIGLIP["text_config"]["projection_size"] = 480
# name -> fields, tokens, images, samples at stages 0 to 3
MODELS = {
    "siglip": (
        {**SIGLIP, "model_type": "siglip", "architectures": ["SiglipModel"]},
        64,
        None,
        (3, 32, 1, 8),
    ),
    "clip's tower": (
        {**TWO, "model_type": "clip", "architectures": ["CLIPForImageClassification"]},
        64,
        None,
        (1, 4, 16, 3),
    ),
    "qwen 3 sees": (QWEN3, 1000, Images(2, 320, 448), (1, 2, 3, 2)),
}


def _jobs(folder):
    for name, (fields, tokens, images, batches) in MODELS.items():
        path = folder / f"{name}.json"
        path.write_text(json.dumps(fields), encoding="utf-8")
        spec = models.load(str(path))
        assert activations.load(spec, feed_of(spec, Said(images=images))) is not None
        for stage, batch in enumerate(batches):
            stated = {"seq_len": tokens, "attention": "sdpa", "checkpointing": stage == 1}
            config = config_of({"stage": stage}, train_micro_batch_size_per_gpu=batch)
            yield name, make_job(config, spec, 4, micro_batch=batch, images=images, **stated)


def test_the_peak_is_the_engines(tmp_path):
    from zero_sizer.dryrun.simulated import parent

    asked = list(_jobs(tmp_path))
    requests = [parent.request_of(job, rank=0, steps=2) for _, job in asked]
    for (name, job), recording in zip(asked, parent.run_requests(requests), strict=True):
        assert not select.is_closed_form(size(job).plan), name
        _is_as_predicted(job, recording)


def _is_as_predicted(job, recording):
    assert not isinstance(recording, Exception), (job, recording)
    rows = compare.against_recording(job, recording).rows
    peaks = [row for row in rows if row.quantity == "peak" and row.device == "gpu"]
    predicted = max(row.predicted for row in peaks)
    assert predicted == pytest.approx(max(row.witnessed for row in peaks), rel=LIMIT), job


def test_clip_runs_once_its_scale_has_a_dimension(monkeypatch):
    """As it is, DeepSpeed 0.19.8 refuses it, as ``parameter-without-dimensions`` says."""
    from zero_sizer.dryrun.simulated import parent

    monkeypatch.setenv("PYTHONPATH", PYTHONPATH)
    spec = models.load("clip-vit-base")
    stated = {"seq_len": 77, "attention": "sdpa", "checkpointing": False}
    jobs = []
    for stage, batch in ((2, 64), (3, 3)):
        config = config_of({"stage": stage}, train_micro_batch_size_per_gpu=batch)
        jobs.append(make_job(config, spec, 4, micro_batch=batch, **stated))
    own = [parent.request_of(job, rank=0, steps=2) for job in jobs]
    mended = [replace(request, hf_config={}, factory="clip_models:base") for request in own]
    refused, *recordings = parent.run_requests([own[0], *mended])
    assert isinstance(refused, ZeroSizerError)
    assert "self.dim() cannot be 0" in str(refused)
    for job, recording in zip(jobs, recordings, strict=True):
        assert "parameter-without-dimensions" in {f.code for f in size(job).findings}
        _is_as_predicted(job, recording)
