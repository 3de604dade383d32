"""Bundled models of 2025 and 2026 that see (the fields: ``model_source``).

Weights of multi-token prediction, which transformers does not build, and floats that clip are
published with some of them: such counts are None here, and tests hold them to the size that their
cards round to. What a config.json says is taken from where public code repeats it: Qwen3.5 in
torchtitan ``models/qwen3_5``, Gemma 4 and OLMo 3 in MaxText ``hf_model_configs.py``, Ministral 3
in Megatron Bridge ``models/ministral3``, and the defaults of transformers' own config classes.
"""

from dataclasses import replace
from typing import Any

from model_source import Source, causal
from model_sources_seeing import LONGER, TIED, text_fields, tower_fields

_TALL = {"patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2}
_SMALLEST, _SMALL, _LARGE = (12, 768, 3072, 12), (24, 1024, 4096, 16), (27, 1152, 4304, 16)


def _tower(out: int, widths: tuple[int, int, int, int]) -> dict[str, Any]:
    depth, hidden, ffn, heads = widths
    return {
        "depth": depth,
        "hidden_size": hidden,
        "intermediate_size": ffn,
        "num_heads": heads,
        "out_hidden_size": out,
        "num_position_embeddings": 2304,
        **_TALL,
    }


def _linear(value_heads: int) -> dict[str, Any]:
    return {
        "head_dim": 256,
        "linear_conv_kernel_dim": 4,
        "linear_key_head_dim": 128,
        "linear_num_key_heads": 16,
        "linear_num_value_heads": value_heads,
        "linear_value_head_dim": 128,
        **LONGER,
    }


def _qwen3_5(
    name: str, widths: tuple[int, ...], tower: tuple[int, int, int, int], **more: Any
) -> Source:
    """Hidden, ffn, layers, heads, kv heads, value heads of linear attention."""
    *plain, value_heads = widths
    tied: dict[str, Any] = TIED if more.pop("tied", False) else {"tie_word_embeddings": False}
    is_sparse = "num_experts" in more
    text = {**text_fields(*plain, 248320), **_linear(value_heads), **tied, **more}
    if is_sparse:
        text.pop("intermediate_size")
    return causal(
        "qwen3_5_moe" if is_sparse else "qwen3_5",
        f"Qwen3_5{'Moe' if is_sparse else ''}ForConditionalGeneration",
        f"Qwen/Qwen3.5-{name}",
        None,
        dtype="bfloat16",
        image_token_id=248056,
        vision_start_token_id=248053,
        vision_end_token_id=248054,
        **tied,
        text_config=text,
        vision_config=_tower(plain[0], tower),
    )


def _experts(count: int, each: int, ffn: int) -> dict[str, Any]:
    return {
        "num_experts": count,
        "num_experts_per_tok": each,
        "moe_intermediate_size": ffn,
        "shared_expert_intermediate_size": ffn,
    }


QWEN3_5 = {
    "qwen3.5-0.8b": _qwen3_5("0.8B", (1024, 3584, 24, 8, 2, 16), _SMALLEST, tied=True),
    "qwen3.5-2b": _qwen3_5("2B", (2048, 6144, 24, 8, 2, 16), _SMALL, tied=True),
    "qwen3.5-4b": _qwen3_5("4B", (2560, 9216, 32, 16, 4, 32), _SMALL, tied=True),
    "qwen3.5-9b": _qwen3_5("9B", (4096, 12288, 32, 16, 4, 32), _LARGE),
    "qwen3.5-27b": _qwen3_5("27B", (5120, 17408, 64, 24, 4, 48), _LARGE),
    "qwen3.5-35b-a3b": _qwen3_5(
        "35B-A3B", (2048, 0, 40, 16, 2, 32), _LARGE, **_experts(256, 8, 512)
    ),
    "qwen3.5-122b-a10b": _qwen3_5(
        "122B-A10B", (3072, 0, 48, 32, 2, 64), _LARGE, **_experts(256, 8, 1024)
    ),
    "qwen3.5-397b-a17b": _qwen3_5(
        "397B-A17B", (4096, 0, 60, 32, 2, 64), _LARGE, **_experts(512, 10, 1024)
    ),
}

_SLIDING, _FULL = "sliding_attention", "full_attention"
_GEMMA_TOWER = tower_fields(
    1152, 4304, 27, 16, num_key_value_heads=16, head_dim=72, patch_size=16, standardize=True
)


def _gemma4(name: str, text: dict[str, Any], every: int, **more: Any) -> Source:
    layers = text["num_hidden_layers"]
    kinds = [_FULL if (i + 1) % every == 0 else _SLIDING for i in range(layers)]
    return causal(
        "gemma4",
        "Gemma4ForConditionalGeneration",
        f"google/gemma-4-{name}",
        None,
        dtype="bfloat16",
        **TIED,
        text_config={
            **text,
            **TIED,
            "head_dim": 256,
            "global_head_dim": 512,
            "final_logit_softcapping": 30.0,
            "layer_types": kinds,
        },
        **more,
    )


_BOUND = {"use_bidirectional_attention": "vision", "hidden_size_per_layer_input": 0}
_PER_LAYER = {"hidden_size_per_layer_input": 256, "sliding_window": 512}
_SMALL_ONES: dict[str, Any] = {
    "vision_config": {**tower_fields(768, 3072, 16, 12, head_dim=64), "use_clipped_linears": True},
    "audio_config": {"hidden_size": 1024, "num_hidden_layers": 12, "num_attention_heads": 8},
}
_LARGE_ONES: dict[str, Any] = {"vision_config": _GEMMA_TOWER, "audio_config": None}

GEMMA4 = {
    "gemma-4-e2b": _gemma4(
        "E2B",
        {
            **text_fields(1536, 6144, 35, 8, 1, 262144, max_position_embeddings=131072),
            **_PER_LAYER,
            "num_kv_shared_layers": 20,
            "use_double_wide_mlp": True,
        },
        5,
        **_SMALL_ONES,
    ),
    "gemma-4-e4b": _gemma4(
        "E4B",
        {
            **text_fields(2560, 10240, 42, 8, 2, 262144, max_position_embeddings=131072),
            **_PER_LAYER,
            "num_kv_shared_layers": 18,
        },
        6,
        **_SMALL_ONES,
    ),
    "gemma-4-26b-a4b": _gemma4(
        "26B-A4B",
        {
            **text_fields(2816, 2112, 30, 16, 8, 262144, **LONGER),
            **_BOUND,
            "sliding_window": 1024,
            "attention_k_eq_v": True,
            "num_global_key_value_heads": 2,
            "enable_moe_block": True,
            "moe_intermediate_size": 704,
            "num_experts": 128,
            "top_k_experts": 8,
        },
        6,
        **_LARGE_ONES,
    ),
    "gemma-4-31b": _gemma4(
        "31B",
        {
            **text_fields(5376, 21504, 60, 32, 16, 262144, **LONGER),
            **_BOUND,
            "sliding_window": 1024,
            "attention_k_eq_v": True,
            "num_global_key_value_heads": 4,
        },
        6,
        **_LARGE_ONES,
    ),
}


def _ministral3(name: str, *widths: int, tied: bool = False) -> Source:
    """Ministral 3 of 2025: a Mistral with Pixtral's tower before it."""
    return causal(
        "mistral3",
        "Mistral3ForConditionalGeneration",
        f"mistralai/Ministral-3-{name}-Base-2512",
        None,
        dtype="bfloat16",
        tie_word_embeddings=tied,
        image_token_index=10,
        spatial_merge_size=2,
        vision_feature_layer=-1,
        text_config={
            "model_type": "ministral3",
            **text_fields(*widths, 131072, head_dim=128, tie_word_embeddings=tied, **LONGER),
        },
        vision_config={
            "model_type": "pixtral",
            **tower_fields(1024, 4096, 24, 16, head_dim=64, image_size=1540, patch_size=14),
        },
    )


MINISTRAL3 = {
    "ministral-3-3b": _ministral3("3B", 3072, 9216, 26, 32, 8, tied=True),
    "ministral-3-8b": _ministral3("8B", 4096, 14336, 34, 32, 8),
    "ministral-3-14b": _ministral3("14B", 5120, 16384, 40, 32, 8),
}

MLLAMA = {
    "llama-3.2-11b-vision": causal(
        "mllama",
        "MllamaForConditionalGeneration",
        "meta-llama/Llama-3.2-11B-Vision",
        None,
        dtype="bfloat16",
        image_token_index=128256,
        text_config={
            **text_fields(4096, 14336, 40, 32, 8, 128256, max_position_embeddings=131072),
            "cross_attention_layers": [3, 8, 13, 18, 23, 28, 33, 38],
        },
        vision_config={
            "hidden_size": 1280,
            "intermediate_size": 5120,
            "num_hidden_layers": 32,
            "num_global_layers": 8,
            "attention_heads": 16,
            "vision_output_dim": 7680,
            "intermediate_layers_indices": [3, 7, 15, 23, 30],
            "image_size": 448,
            "patch_size": 14,
            "max_num_tiles": 4,
        },
    ),
}

SEEING_2026: dict[str, Source] = {
    name: replace(source, as_written=True)
    for name, source in {**QWEN3_5, **GEMMA4, **MINISTRAL3, **MLLAMA}.items()
}
