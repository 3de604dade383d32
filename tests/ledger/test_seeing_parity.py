"""CLIP, SigLIP and Qwen3-VL: the ledger, by their families' profiles, beside the real engine."""

import json
import os
from pathlib import Path

import pytest

from zero_sizer.activations import select
from zero_sizer.sizing import size

pytest.importorskip("deepspeed")
pytest.importorskip("transformers")
from other_models import Case, job_of, measured

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
    "qwen 3 sees": (QWEN3, 1000, "2,size=320x448", (1, 2, 3, 2)),
}


def test_the_peak_is_the_engines(tmp_path):
    for name, (fields, tokens, images, batches) in MODELS.items():
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(fields), encoding="utf-8")
        case = Case(str(path), (1, 1, 1), tokens, images=images)
        for stage, batch in enumerate(batches):
            job = job_of(case, stage, batch, None)
            assert not select.is_closed_form(size(job).plan), name
            (row,) = measured({batch: job})
            assert abs(row.error) < LIMIT, (name, stage, row)


def test_clip_runs_once_its_scale_has_a_dimension(monkeypatch):
    """As it is, DeepSpeed 0.19.8 refuses it, as ``parameter-without-dimensions`` says."""
    monkeypatch.setenv("PYTHONPATH", PYTHONPATH)
    case = Case("clip-vit-base", (1, 1, 1), 77)
    for stage, batch in ((2, 64), (3, 3)):
        job = job_of(case, stage, batch, None)
        assert "parameter-without-dimensions" in {f.code for f in size(job).findings}
        (row,) = measured({batch: job}, "clip_models:base")
        assert abs(row.error) < LIMIT, (stage, row)
    with pytest.raises(SystemExit, match=r"self\.dim\(\) cannot be 0"):
        list(measured({3: job}))
