"""Families whose blocks differ against traces of whole models: other widths, orders and depths.

None of the shapes is one that a family was traced at (scripts/mixed_members.py).
"""

from pathlib import Path

import pytest
from support.profile_checks import assert_seen, spec_of, traced_cases

from zero_sizer.activations import structure
from zero_sizer.models.sources.bundled import load_bundled

ROOT = Path(__file__).parents[2]
PLAIN, RECOMPUTED = ["bf16", "sdpa", False], ["bf16", "sdpa", True]
EAGER, FLASH = ["bf16", "eager", True], ["bf16", "flash", False]
AUTOCAST = ["autocast zero3", "sdpa", False]
SLIDES, FULL = "sliding_attention", "full_attention"
DECODER = {
    "hidden_size": 256,
    "intermediate_size": 384,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1024,
    "pad_token_id": 0,
}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 128, "n_shared_experts": 2}
LATENT = {
    **DECODER,
    **EXPERTS,
    "num_key_value_heads": 4,
    "n_routed_experts": 8,
    "kv_lora_rank": 96,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 8,
    "v_head_dim": 24,
}
CASES = {
    "gpt-oss": (
        {
            **DECODER,
            "model_type": "gpt_oss",
            "head_dim": 48,
            "num_local_experts": 6,
            "num_experts_per_tok": 2,
            "sliding_window": 640,
            "layer_types": [SLIDES, FULL, FULL, SLIDES, FULL],
        },
        [FLASH, EAGER, ["autocast zero3", "flash", False]],
    ),
    "gemma 3": (
        {
            **DECODER,
            "model_type": "gemma3_text",
            "head_dim": 48,
            "sliding_window": 640,
            "sliding_window_pattern": 3,
            "num_hidden_layers": 8,
        },
        [PLAIN, ["bf16", "flash", True], AUTOCAST],
    ),
    "gemma 3 of one key": (
        {
            **DECODER,
            "model_type": "gemma3_text",
            "num_key_value_heads": 1,
            "head_dim": 56,
            "sliding_window": 320,
        }
        | {"layer_types": [SLIDES, FULL, FULL, SLIDES, SLIDES]},
        [PLAIN, EAGER],
    ),
    "smollm3": (
        {**DECODER, "model_type": "smollm3", "no_rope_layer_interval": 2},
        [PLAIN, EAGER, ["fp32", "sdpa", True], AUTOCAST],
    ),
    "olmo 3": (
        {**DECODER, "model_type": "olmo3", "sliding_window": 640},
        [PLAIN, ["bf16", "flash", True], EAGER, AUTOCAST],
    ),
    "olmo 3 of as many keys": (
        {**DECODER, "model_type": "olmo3", "sliding_window": 640, "num_key_value_heads": 4}
        | {"layer_types": [SLIDES, FULL, FULL, SLIDES, SLIDES]},
        [PLAIN, RECOMPUTED],
    ),
    "deepseek v2 lite": (
        {**LATENT, "model_type": "deepseek_v2", "q_lora_rank": None, "first_k_dense_replace": 1},
        [FLASH, PLAIN, RECOMPUTED, AUTOCAST],
    ),
    "deepseek v2 in groups": (
        {
            **LATENT,
            "model_type": "deepseek_v2",
            "q_lora_rank": 72,
            "qk_rope_head_dim": 16,
            "v_head_dim": 32,
            "topk_method": "group_limited_greedy",
            "n_group": 4,
            "topk_group": 2,
            "first_k_dense_replace": 1,
        },
        [FLASH, PLAIN, RECOMPUTED, ["bf16", "eager", False], AUTOCAST],
    ),
    "deepseek v3": (
        {
            **LATENT,
            "model_type": "deepseek_v3",
            "q_lora_rank": 72,
            "n_group": 4,
            "topk_group": 2,
            "first_k_dense_replace": 2,
        },
        [PLAIN, RECOMPUTED, AUTOCAST],
    ),
    "glm 4.5": (
        {
            **DECODER,
            **EXPERTS,
            "model_type": "glm4_moe",
            "head_dim": 48,
            "n_routed_experts": 8,
            "first_k_dense_replace": 1,
            "attention_bias": True,
        },
        [PLAIN, EAGER, ["bf16 zero3", "sdpa", False]],
    ),
    "glm 4.5 with normed queries": (
        {
            **DECODER,
            **EXPERTS,
            "model_type": "glm4_moe",
            "head_dim": 48,
            "n_routed_experts": 8,
            "first_k_dense_replace": 2,
            "attention_bias": True,
            "use_qk_norm": True,
        },
        [PLAIN, RECOMPUTED, ["bf16 zero3", "eager", False], AUTOCAST],
    ),
    "llama 4 maverick": (
        {
            **DECODER,
            "model_type": "llama4_text",
            "head_dim": 48,
            "num_local_experts": 6,
            "intermediate_size_mlp": 640,
            "attention_chunk_size": 640,
            "moe_layers": [1, 2, 4],
            "no_rope_layers": [1, 1, 0, 1, 0],
        },
        [PLAIN, RECOMPUTED, EAGER, AUTOCAST],
    ),
    "llama 4": (
        {
            **DECODER,
            "model_type": "llama4_text",
            "head_dim": 48,
            "num_local_experts": 6,
            "intermediate_size_mlp": 640,
            "attention_chunk_size": 640,
            "no_rope_layers": [1, 0, 1, 1, 0],
        },
        [PLAIN, RECOMPUTED, ["bf16", "eager", False], AUTOCAST],
    ),
}
POINTS = [[3, 960], [1, 512]]  # on both sides of the windows; one is enough where there are none
WINDOWS = ("sliding_window", "attention_chunk_size")


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """Name of a case -> the whole model's levels."""
    cases = {
        name: {
            "fields": fields,
            "points": POINTS if any(key in fields for key in WINDOWS) else POINTS[:1],
            "setups": setups,
            "shortened": False,
        }
        for name, (fields, setups) in CASES.items()
    }
    return traced_cases(cases, tmp_path_factory.mktemp("traces"))


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_family_gives_what_a_model_of_other_widths_and_orders_shows(name, seen, tmp_path):
    profile = structure.load(spec_of(CASES[name][0], tmp_path))
    assert profile is not None
    assert_seen(profile, seen[name]["seen"])


@pytest.mark.slow
def test_no_block_is_left_of_a_model_whose_table_has_an_input_for_each():
    """Gemma 4 E2B, of which 30 of 35 blocks were left: its forward raised."""
    from zero_sizer.tracing.setups import Tracer

    tracer = Tracer(load_bundled("gemma-4-e2b").hf_config)
    assert [of.traced for of in tracer.stacks if "language" in of.prefix] == [35]
