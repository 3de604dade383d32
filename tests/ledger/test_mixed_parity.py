"""Decoders whose blocks differ: the ledger, by their families' profiles, beside the real engine."""

import json

import pytest
from support.plans import make_job
from support.simulated_jobs import config_of

from zero_sizer import activations, models
from zero_sizer.crosscheck import compare

pytest.importorskip("deepspeed")
pytest.importorskip("transformers")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

COMMON = {
    "hidden_size": 512,
    "num_hidden_layers": 5,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "vocab_size": 1000,
    "pad_token_id": 0,
    "dtype": "bfloat16",
}
EXPERTS = {"num_local_experts": 8, "intermediate_size": 1360}
LATENT = {
    "num_key_value_heads": 8,
    "intermediate_size": 1360,
    "q_lora_rank": 192,
    "kv_lora_rank": 128,
    "qk_nope_head_dim": 64,
    "qk_rope_head_dim": 32,
    "v_head_dim": 64,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 688,
    "first_k_dense_replace": 1,
}
MODELS = {
    # experts that are multiplied as they lie, around an activation that is a module of its own
    "llama 4": ("sdpa", {"model_type": "llama4_text", "num_experts_per_tok": 1, **EXPERTS}),
    "gpt-oss": (
        "flash",
        {"model_type": "gpt_oss", "num_experts_per_tok": 2, "sliding_window": 128, **EXPERTS},
    ),
    "deepseek": ("sdpa", {"model_type": "deepseek_v2", **LATENT, "q_lora_rank": None}),
}
EVERY_STAGE = {
    "deepseek in groups": (
        "sdpa",
        {
            "model_type": "deepseek_v2",
            **LATENT,
            "topk_method": "group_limited_greedy",
            "n_group": 4,
            "topk_group": 2,
        },
    ),
    "glm 4.5": (
        "sdpa",
        {
            "model_type": "glm4_moe",
            "intermediate_size": 1360,
            "n_routed_experts": 8,
            "n_shared_experts": 1,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 688,
            "first_k_dense_replace": 2,
            "attention_bias": True,
            "use_qk_norm": True,
        },
    ),
    "llama 4 maverick": (
        "sdpa",
        {
            "model_type": "llama4_text",
            "num_experts_per_tok": 1,
            "intermediate_size_mlp": 2048,
            "moe_layers": [1, 2, 4],
            "no_rope_layers": [1, 1, 0, 1, 0],
            **EXPERTS,
        },
    ),
}
LIMIT = 0.005


def jobs(folder):
    """Stage 3, and stage 2 with blocks recomputed; of families that came later, stages 0 and 1."""
    for name, (attention, fields) in {**MODELS, **EVERY_STAGE}.items():
        path = folder / f"{name}.json"
        path.write_text(json.dumps({**COMMON, **fields}), encoding="utf-8")
        spec = models.load(str(path))
        assert activations.load(spec) is not None
        for stage in (0, 1, 2, 3) if name in EVERY_STAGE else (2, 3):
            stated = {"seq_len": 256, "attention": attention, "checkpointing": stage == 2}
            yield name, make_job(config_of({"stage": stage}), spec, 4, micro_batch=1, **stated)


def test_the_peak_is_the_engines(tmp_path):
    from zero_sizer.dryrun.simulated import parent

    asked = list(jobs(tmp_path))
    requests = [parent.request_of(job, rank=0, steps=2) for _, job in asked]
    for (name, job), recording in zip(asked, parent.run_requests(requests), strict=True):
        assert not isinstance(recording, Exception), (name, recording)
        rows = compare.against_recording(job, recording).rows
        peaks = [row for row in rows if row.quantity == "peak" and row.device == "gpu"]
        assert peaks
        for row in peaks:
            assert row.predicted == pytest.approx(row.witnessed, rel=LIMIT), (name, row)
