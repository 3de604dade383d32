"""Bundled models of 2024 to 2026 (the fields: ``model_source``).

Their families are not laid out here: the tensors are those of transformers' own classes.
"""

from dataclasses import replace
from typing import Any

from model_source import Source, causal, decoder
from model_sources_seeing import (
    LARGE,
    LONGER,
    SMALL,
    TIED,
    qwen3_tower,
    qwen_vl,
    text_fields,
    tower_fields,
)

# Published with the router's correction biases, which are buffers, or with layers of multi-token
# prediction, which transformers does not build: such counts are None here.
EXPERTS = {
    "deepseek-v2-lite": causal(
        "deepseek_v2",
        "DeepseekV2ForCausalLM",
        "deepseek-ai/DeepSeek-V2-Lite",
        15_706_484_224,
        **decoder(2048, 10944, 27, 16, 16, 102400, max_position_embeddings=163840),
        moe_intermediate_size=1408,
        n_routed_experts=64,
        n_shared_experts=2,
        num_experts_per_tok=6,
        first_k_dense_replace=1,
        q_lora_rank=None,
        kv_lora_rank=512,
        qk_rope_head_dim=64,
        qk_nope_head_dim=128,
        v_head_dim=128,
        topk_method="greedy",
    ),
    "deepseek-v2": causal(
        "deepseek_v2",
        "DeepseekV2ForCausalLM",
        "deepseek-ai/DeepSeek-V2",
        235_741_434_880,
        **decoder(5120, 12288, 60, 128, 128, 102400, max_position_embeddings=163840),
        moe_intermediate_size=1536,
        n_routed_experts=160,
        n_shared_experts=2,
        num_experts_per_tok=6,
        first_k_dense_replace=1,
        q_lora_rank=1536,
        kv_lora_rank=512,
        qk_rope_head_dim=64,
        qk_nope_head_dim=128,
        v_head_dim=128,
        topk_method="group_limited_greedy",
        n_group=8,
        topk_group=3,
    ),
    "gpt-oss-20b": causal(
        "gpt_oss",
        "GptOssForCausalLM",
        "openai/gpt-oss-20b",
        20_914_757_184,
        **decoder(2880, 2880, 24, 64, 8, 201088, head_dim=64, max_position_embeddings=131072),
        num_local_experts=32,
        num_experts_per_tok=4,
        sliding_window=128,
    ),
    "gpt-oss-120b": causal(
        "gpt_oss",
        "GptOssForCausalLM",
        "openai/gpt-oss-120b",
        116_829_156_672,
        **decoder(2880, 2880, 36, 64, 8, 201088, head_dim=64, max_position_embeddings=131072),
        num_local_experts=128,
        num_experts_per_tok=4,
        sliding_window=128,
    ),
    "qwen3-next-80b-a3b": causal(
        "qwen3_next",
        "Qwen3NextForCausalLM",
        "Qwen/Qwen3-Next-80B-A3B-Instruct",
        None,
        **decoder(2048, 5120, 48, 16, 2, 151936, head_dim=256, max_position_embeddings=262144),
        moe_intermediate_size=512,
        shared_expert_intermediate_size=512,
        num_experts=512,
        num_experts_per_tok=10,
        linear_conv_kernel_dim=4,
        linear_key_head_dim=128,
        linear_num_key_heads=16,
        linear_num_value_heads=32,
        linear_value_head_dim=128,
        partial_rotary_factor=0.25,
    ),
    "glm-4.5-air": causal(
        "glm4_moe",
        "Glm4MoeForCausalLM",
        "zai-org/GLM-4.5-Air",
        None,
        **decoder(4096, 10944, 46, 96, 8, 151552, head_dim=128, max_position_embeddings=131072),
        moe_intermediate_size=1408,
        n_routed_experts=128,
        n_shared_experts=1,
        num_experts_per_tok=8,
        first_k_dense_replace=1,
        partial_rotary_factor=0.5,
        attention_bias=True,
    ),
    "glm-4.5": causal(
        "glm4_moe",
        "Glm4MoeForCausalLM",
        "zai-org/GLM-4.5",
        None,
        **decoder(5120, 12288, 92, 96, 8, 151552, head_dim=128, max_position_embeddings=131072),
        moe_intermediate_size=1536,
        n_routed_experts=160,
        n_shared_experts=1,
        num_experts_per_tok=8,
        first_k_dense_replace=3,
        partial_rotary_factor=0.5,
        attention_bias=True,
        use_qk_norm=True,
    ),
}

DENSE = {
    "smollm3-3b": causal(
        "smollm3",
        "SmolLM3ForCausalLM",
        "HuggingFaceTB/SmolLM3-3B",
        3_075_098_624,
        **decoder(2048, 11008, 36, 16, 4, 128256, max_position_embeddings=65536),
        tie_word_embeddings=True,
    ),
    "gemma-3-1b": causal(
        "gemma3_text",
        "Gemma3ForCausalLM",
        "google/gemma-3-1b-it",
        999_885_952,
        **decoder(1152, 6912, 26, 4, 1, 262144, head_dim=256, max_position_embeddings=32768),
        sliding_window=512,
    ),
    "gemma-3-270m": causal(
        "gemma3_text",
        "Gemma3ForCausalLM",
        "google/gemma-3-270m",
        268_098_176,
        **decoder(640, 2048, 18, 4, 1, 262144, head_dim=256, max_position_embeddings=32768),
        sliding_window=512,
    ),
    "glm-4-9b-0414": causal(
        "glm4",
        "Glm4ForCausalLM",
        "THUDM/GLM-4-9B-0414",
        9_400_279_040,
        **decoder(4096, 13696, 40, 32, 2, 151552, head_dim=128, max_position_embeddings=32768),
        partial_rotary_factor=0.5,
        attention_bias=True,
    ),
    "glm-4-32b-0414": causal(
        "glm4",
        "Glm4ForCausalLM",
        "THUDM/GLM-4-32B-0414",
        32_566_081_536,
        **decoder(6144, 23040, 61, 48, 2, 151552, head_dim=128, max_position_embeddings=32768),
        partial_rotary_factor=0.5,
        attention_bias=False,
    ),
    "olmo-2-1b": causal(
        "olmo2",
        "Olmo2ForCausalLM",
        "allenai/OLMo-2-0425-1B",
        1_484_916_736,
        **decoder(2048, 8192, 16, 16, 16, 100352, max_position_embeddings=4096),
    ),
    "olmo-2-7b": causal(
        "olmo2",
        "Olmo2ForCausalLM",
        "allenai/OLMo-2-1124-7B",
        7_298_617_344,
        **decoder(4096, 11008, 32, 32, 32, 100352, max_position_embeddings=4096),
    ),
    "olmo-2-13b": causal(
        "olmo2",
        "Olmo2ForCausalLM",
        "allenai/OLMo-2-1124-13B",
        13_716_198_400,
        **decoder(5120, 13824, 40, 40, 40, 100352, max_position_embeddings=4096),
    ),
    "olmo-2-32b": causal(
        "olmo2",
        "Olmo2ForCausalLM",
        "allenai/OLMo-2-0325-32B",
        32_234_279_936,
        **decoder(5120, 27648, 64, 40, 8, 100352, max_position_embeddings=4096),
    ),
    "granite-3.3-2b": causal(
        "granite",
        "GraniteForCausalLM",
        "ibm-granite/granite-3.3-2b-instruct",
        2_533_539_840,
        **decoder(2048, 8192, 40, 32, 8, 49159, max_position_embeddings=131072),
        tie_word_embeddings=True,
    ),
    "granite-3.3-8b": causal(
        "granite",
        "GraniteForCausalLM",
        "ibm-granite/granite-3.3-8b-instruct",
        8_170_864_640,
        **decoder(4096, 12800, 40, 32, 8, 49159, max_position_embeddings=131072),
        tie_word_embeddings=True,
    ),
    "seed-oss-36b": causal(
        "seed_oss",
        "SeedOssForCausalLM",
        "ByteDance-Seed/Seed-OSS-36B-Instruct",
        36_151_104_512,
        **decoder(5120, 27648, 64, 80, 8, 155136, head_dim=128, max_position_embeddings=524288),
        attention_bias=True,
    ),
}


def _mistral3(source: str, params: int) -> Source:
    """Mistral Small 3.1 and what followed: Pixtral's tower before Mistral Small 3."""
    return causal(
        "mistral3",
        "Mistral3ForConditionalGeneration",
        source,
        params,
        dtype="bfloat16",
        tie_word_embeddings=False,
        image_token_index=10,
        spatial_merge_size=2,
        vision_feature_layer=-1,
        text_config={
            "model_type": "mistral",
            **text_fields(
                5120, 32768, 40, 32, 8, 131072, head_dim=128, max_position_embeddings=131072
            ),
        },
        vision_config={
            "model_type": "pixtral",
            **tower_fields(1024, 4096, 24, 16, head_dim=64, image_size=1540, patch_size=14),
        },
    )


def _llama4(source: str, params: int, experts: int, every: int, longest: int) -> Source:
    language = {
        **text_fields(5120, 8192, 48, 40, 8, 202048, head_dim=128, max_position_embeddings=longest),
        "intermediate_size_mlp": 16384,
        "num_local_experts": experts,
        "num_experts_per_tok": 1,
        "interleave_moe_layer_step": every,
    }
    seen = {"image_size": 336, "patch_size": 14, "vision_output_dim": 4096}
    projector = {"projector_input_dim": 4096, "projector_output_dim": 4096}
    return causal(
        "llama4",
        "Llama4ForConditionalGeneration",
        source,
        params,
        dtype="bfloat16",
        image_token_index=200092,
        text_config=language,
        vision_config={**tower_fields(1408, 5632, 34, 16, **seen), **projector},
    )


def _internvl(source: str, params: int | None, words: dict[str, Any]) -> Source:
    seen = tower_fields(1024, 4096, 24, 16, image_size=[448, 448], patch_size=[14, 14])
    return causal(
        "internvl",
        "InternVLForConditionalGeneration",
        source,
        params,
        dtype="bfloat16",
        tie_word_embeddings=False,
        image_token_id=151667,
        image_seq_length=256,
        downsample_ratio=0.5,
        text_config={"model_type": "qwen2", **words},
        vision_config={"model_type": "internvl_vision", "attention_bias": True, **seen},
    )


def _qwen3_vl(name: str, params: int | None, *parts: dict[str, Any]) -> Source:
    kind = "qwen3_vl_moe" if "num_experts" in parts[0] else "qwen3_vl"
    return qwen_vl(kind, f"Qwen/Qwen3-VL-{name}-Instruct", params, *parts)


_PALI = {"image_size": 224, "patch_size": 14, "projection_dim": 2048, "vision_use_head": False}

SEEING = {
    "mistral-small-3.1-24b": _mistral3(
        "mistralai/Mistral-Small-3.1-24B-Instruct-2503", 24_011_361_280
    ),
    "llama-4-scout": _llama4(
        "meta-llama/Llama-4-Scout-17B-16E-Instruct", 108_641_793_536, 16, 1, 10_485_760
    ),
    "llama-4-maverick": _llama4(
        "meta-llama/Llama-4-Maverick-17B-128E-Instruct", 401_583_781_376, 128, 2, 1_048_576
    ),
    "qwen3-vl-2b": _qwen3_vl(
        "2B",
        2_127_532_032,
        text_fields(2048, 6144, 28, 16, 8, 151936, head_dim=128, **TIED, **LONGER),
        qwen3_tower(2048, *SMALL),
    ),
    "qwen3-vl-32b": _qwen3_vl(
        "32B",
        33_357_390_064,
        text_fields(5120, 25600, 64, 64, 8, 151936, head_dim=128, **LONGER),
        qwen3_tower(5120, *LARGE),
    ),
    "qwen3-vl-30b-a3b": _qwen3_vl(
        "30B-A3B",
        31_070_754_032,
        {
            **text_fields(2048, 6144, 48, 32, 4, 151936, head_dim=128, **LONGER),
            "moe_intermediate_size": 768,
            "num_experts": 128,
            "num_experts_per_tok": 8,
        },
        qwen3_tower(2048, *LARGE),
    ),
    # its towers and layers in Ascend/MindSpeed-MM 2.3.0 examples/qwen3vl/model_235B.json
    "qwen3-vl-235b-a22b": _qwen3_vl(
        "235B-A22B",
        None,
        {
            **text_fields(4096, 12288, 94, 64, 4, 151936, head_dim=128, **LONGER),
            "moe_intermediate_size": 1536,
            "num_experts": 128,
            "num_experts_per_tok": 8,
        },
        qwen3_tower(4096, *LARGE),
    ),
    "internvl3-1b": _internvl(
        "OpenGVLab/InternVL3-1B-hf",
        None,
        text_fields(896, 4864, 24, 14, 2, 151674, max_position_embeddings=32768),
    ),
    "internvl3-2b": _internvl(
        "OpenGVLab/InternVL3-2B-hf",
        2_088_957_440,
        text_fields(1536, 8960, 28, 12, 2, 151674, max_position_embeddings=32768),
    ),
    "internvl3-8b": _internvl(
        "OpenGVLab/InternVL3-8B-hf",
        7_944_373_760,
        text_fields(3584, 18944, 28, 28, 4, 151674, max_position_embeddings=32768),
    ),
    "paligemma-3b": causal(
        "paligemma",
        "PaliGemmaForConditionalGeneration",
        "google/paligemma-3b-pt-224",
        2_923_466_480,
        image_token_index=257152,
        projection_dim=2048,
        text_config={
            "model_type": "gemma",
            **text_fields(2048, 16384, 18, 8, 1, 257216, head_dim=256, **TIED),
            "num_image_tokens": 256,
        },
        vision_config={
            "model_type": "siglip_vision_model",
            **tower_fields(1152, 4304, 27, 16, **_PALI),
        },
    ),
}

LATER: dict[str, Source] = {
    name: replace(source, as_written=True)
    for name, source in {**EXPERTS, **DENSE, **SEEING}.items()
}
