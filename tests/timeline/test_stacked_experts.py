"""Stacked experts that backward keeps gathered: only those that a product saves transposed."""

import json

import pytest
from support.plans import make_job

from zero_sizer import models
from zero_sizer.sizing import size
from zero_sizer.timeline.zero_rules import zero_of

SIZES = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 128}
SIZES |= {"num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 4}
SIZES |= {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 16}
# by transformers 5.23's ``is_transposed``
KEEPS = {"mixtral": True, "qwen3_moe": True, "gpt_oss": False}


@pytest.mark.slow
@pytest.mark.parametrize("family", KEEPS)
def test_experts_that_lie_as_they_are_multiplied_are_released(family, tmp_path):
    pytest.importorskip("transformers")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family, **SIZES}))
    spec = models.load(str(tmp_path))
    config = {"bf16": {"enabled": True}, "zero_optimization": {"stage": 3}}
    plan = size(make_job(config, spec, 8, checkpointing=False)).plan
    kept = zero_of(plan).kept
    stacked = {i for i, tensor in enumerate(spec.parameters) if tensor.is_stacked}
    assert stacked
    assert (stacked <= kept) is KEEPS[family]
