"""Bundled language models of 2024 to 2026 (the fields: ``model_source``).

Their fields are taken from where public code repeats the hub's config.json: OLMo 3 in MaxText
``hf_model_configs.py``, GLM-4.7-Flash in slime's scripts, LFM2, Granite and StarCoder2 in
copies of it on the hub itself; OLMoE, MiniMax-M2, GLM-5, Qwen1.5-MoE and StableLM are the defaults
of transformers' own config classes.
"""

from dataclasses import replace
from typing import Any

from model_source import Source, causal, decoder

OLMO = {
    "olmo-3-7b": causal(
        "olmo3",
        "Olmo3ForCausalLM",
        "allenai/Olmo-3-1025-7B",
        None,
        **decoder(4096, 11008, 32, 32, 32, 100278, max_position_embeddings=65536),
        sliding_window=4096,
    ),
    "olmo-3-32b": causal(
        "olmo3",
        "Olmo3ForCausalLM",
        "allenai/Olmo-3-1125-32B",
        None,
        **decoder(5120, 27648, 64, 40, 8, 100278, max_position_embeddings=65536),
        sliding_window=4096,
    ),
    "olmoe-1b-7b": causal(
        "olmoe",
        "OlmoeForCausalLM",
        "allenai/OLMoE-1B-7B-0924",
        6_919_161_856,
        **decoder(2048, 1024, 16, 16, 16, 50304, max_position_embeddings=4096),
        num_experts=64,
        num_experts_per_tok=8,
    ),
}


def _granite(name: str, *widths: int, params: int | None = None) -> Source:
    return causal(
        "granite",
        "GraniteForCausalLM",
        f"ibm-granite/granite-{name}",
        params,
        **decoder(*widths, max_position_embeddings=131072),
        tie_word_embeddings=True,
    )


def _granite_4(name: str, *widths: int, **more: Any) -> Source:
    layers = widths[2]
    fields = decoder(*widths, 100352, max_position_embeddings=131072)
    return causal(
        "granitemoehybrid",
        "GraniteMoeHybridForCausalLM",
        f"ibm-granite/granite-4.0-{name}",
        None,
        **{
            **fields,
            "tie_word_embeddings": True,
            "shared_intermediate_size": widths[1],
            "num_local_experts": 0,
            "num_experts_per_tok": 0,
            "position_embedding_type": "rope",
            "layer_types": ["attention"] * layers,
            **more,
        },
    )


def _granite_moe(name: str, *widths: int, experts: int) -> Source:
    return causal(
        "granitemoe",
        "GraniteMoeForCausalLM",
        f"ibm-granite/granite-{name}",
        None,
        **decoder(*widths, 49155, max_position_embeddings=131072),
        tie_word_embeddings=True,
        num_local_experts=experts,
        num_experts_per_tok=8,
    )


GRANITE = {
    "granite-3.1-2b": _granite("3.1-2b-base", 2048, 8192, 40, 32, 8, 49155),
    "granite-3.1-8b": _granite("3.1-8b-base", 4096, 12800, 40, 32, 8, 49155),
    "granite-3.1-1b-a400m": _granite_moe("3.1-1b-a400m-base", 1024, 512, 24, 16, 8, experts=32),
    "granite-3.1-3b-a800m": _granite_moe("3.1-3b-a800m-base", 1536, 512, 32, 24, 8, experts=40),
    "granite-4.0-350m": _granite_4("350m", 1024, 2048, 28, 16, 4),
    "granite-4.0-1b": _granite_4("1b", 2048, 4096, 40, 16, 4),
    "granite-4.0-micro": _granite_4("micro", 2560, 8192, 40, 40, 8),
    "granite-4.0-h-micro": _granite_4(
        "h-micro",
        *(2048, 8192, 40, 32, 8),
        position_embedding_type="nope",
        layer_types=["attention" if i in (5, 15, 25, 35) else "mamba" for i in range(40)],
        mamba_n_heads=64,
        mamba_d_head=64,
        mamba_d_state=128,
        mamba_n_groups=1,
        mamba_d_conv=4,
        mamba_expand=2,
    ),
    "granite-4.0-h-tiny": _granite_4(  # the table of its model card
        "h-tiny",
        *(1536, 512, 40, 12, 4),
        shared_intermediate_size=1024,
        num_local_experts=64,
        num_experts_per_tok=6,
        position_embedding_type="nope",
        layer_types=["attention" if i in (5, 15, 25, 35) else "mamba" for i in range(40)],
        mamba_n_heads=48,
        mamba_d_head=64,
        mamba_d_state=128,
        mamba_n_groups=1,
        mamba_d_conv=4,
        mamba_expand=2,
    ),
    "granite-4.1-3b": _granite("4.1-3b", 2560, 8192, 40, 40, 8, 100352),
    "granite-4.1-8b": _granite("4.1-8b", 4096, 12800, 40, 32, 8, 100352),
    "granite-4.1-30b": _granite("4.1-30b", 4096, 32768, 64, 32, 8, 100352),
}

GLM = {
    "glm-4.7-flash": causal(
        "glm4_moe_lite",
        "Glm4MoeLiteForCausalLM",
        "zai-org/GLM-4.7-Flash",
        None,
        **decoder(2048, 10240, 47, 20, 20, 154880, max_position_embeddings=202752),
        q_lora_rank=768,
        kv_lora_rank=512,
        qk_rope_head_dim=64,
        qk_nope_head_dim=192,
        v_head_dim=256,
        moe_intermediate_size=1536,
        n_routed_experts=64,
        n_shared_experts=1,
        num_experts_per_tok=4,
    ),
    "glm-5": causal(
        "glm_moe_dsa",
        "GlmMoeDsaForCausalLM",
        "zai-org/GLM-5",
        None,
        **decoder(6144, 12288, 78, 64, 64, 154880, max_position_embeddings=202752),
        q_lora_rank=2048,
        kv_lora_rank=512,
        qk_rope_head_dim=64,
        qk_nope_head_dim=192,
        v_head_dim=256,
        moe_intermediate_size=2048,
        n_routed_experts=256,
        n_shared_experts=1,
        num_experts_per_tok=8,
        first_k_dense_replace=3,
        index_topk=2048,
        index_n_heads=32,
        index_head_dim=128,
    ),
}


def _lfm2(name: str, *widths: int, full: tuple[int, ...]) -> Source:
    """Short convolutions, attention in the layers of ``full``; MLPs two thirds as wide as said."""
    kinds = ["full_attention" if i in full else "conv" for i in range(widths[2])]
    fields = decoder(*widths, 65536, max_position_embeddings=128000, tie_word_embeddings=True)
    return causal(
        "lfm2",
        "Lfm2ForCausalLM",
        f"LiquidAI/{name}",
        None,
        **fields,
        block_auto_adjust_ff_dim=True,
        block_ffn_dim_multiplier=1.0,
        block_multiple_of=256,
        conv_L_cache=3,
        layer_types=kinds,
    )


_SIX = (2, 5, 8, 10, 12, 14)
OTHERS = {
    "lfm2-350m": _lfm2("LFM2-350M", 1024, 6656, 16, 16, 8, full=_SIX),
    "lfm2-700m": _lfm2("LFM2-700M", 1536, 10240, 16, 24, 8, full=_SIX),
    "lfm2-1.2b": _lfm2("LFM2-1.2B", 2048, 12288, 16, 32, 8, full=_SIX),
    "minimax-m2": causal(
        "minimax_m2",
        "MiniMaxM2ForCausalLM",
        "MiniMaxAI/MiniMax-M2",
        None,
        **decoder(3072, 1536, 62, 48, 8, 200064, head_dim=128, max_position_embeddings=196608),
        num_local_experts=256,
        num_experts_per_tok=8,
    ),
    "qwen1.5-moe-a2.7b": causal(
        "qwen2_moe",
        "Qwen2MoeForCausalLM",
        "Qwen/Qwen1.5-MoE-A2.7B",
        14_315_784_192,
        **decoder(2048, 5632, 24, 16, 16, 151936, max_position_embeddings=8192),
        num_experts=60,
        num_experts_per_tok=4,
        moe_intermediate_size=1408,
        shared_expert_intermediate_size=5632,
    ),
    "stablelm-3b-4e1t": causal(
        "stablelm",
        "StableLmForCausalLM",
        "stabilityai/stablelm-3b-4e1t",
        2_795_443_200,
        **decoder(2560, 6912, 32, 32, 32, 50304, max_position_embeddings=4096),
    ),
    "starcoder2-3b": causal(
        "starcoder2",
        "Starcoder2ForCausalLM",
        "bigcode/starcoder2-3b",
        3_030_371_328,
        **decoder(3072, 12288, 30, 24, 2, 49152, max_position_embeddings=16384),
        sliding_window=4096,
    ),
}

TEXT_2026: dict[str, Source] = {
    name: replace(source, as_written=True)
    for name, source in {**OLMO, **GRANITE, **GLM, **OTHERS}.items()
}
