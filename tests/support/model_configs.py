"""Small Hugging Face configs of every family that has a layout, drawn at random."""

import random
from collections.abc import Callable, Mapping

Config = dict[str, object]
BOTH = (True, False)
WIDTHS = (2, 6, 8)


def decoder(rng: random.Random) -> Config:
    """The fields that every decoder like Llama needs."""
    heads, kv_heads = rng.choice([(1, 1), (2, 1), (4, 2), (4, 4), (6, 3)])
    return {
        "hidden_size": heads * rng.choice([2, 3, 8]),
        "intermediate_size": rng.randint(1, 40),
        "num_hidden_layers": rng.randint(1, 4),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": rng.randint(4, 60),
        "tie_word_embeddings": rng.choice(BOTH),
        "pad_token_id": rng.choice([None, 0, 3]),
    }


def wide_heads(rng: random.Random) -> Config:
    """A decoder whose heads can be rotated in part."""
    config = decoder(rng)
    return config | {"hidden_size": 8 * int(str(config["num_attention_heads"])), "pad_token_id": 1}


def latent(rng: random.Random) -> Config:
    """DeepSeek-V3, with as many experts as its groups need."""
    experts = {"n_routed_experts": 8, "n_group": 2, "topk_group": 1, "num_experts_per_tok": 2}
    return {**decoder(rng), **experts, "qk_rope_head_dim": 4, "moe_intermediate_size": 5}


def routed(rng: random.Random) -> Config:
    """A decoder with as many experts as a token needs; heads can be rotated in part."""
    return {**wide_heads(rng), "num_experts_per_tok": 2}


def plain(hidden: str, heads: str, head_dim: int) -> Callable[[random.Random], Config]:
    """Only the widths that must fit together, under a family's own names."""

    def draw(rng: random.Random) -> Config:
        count = rng.choice([1, 2, 4])
        return {hidden: head_dim * count, heads: count}

    return draw


_COMMON = {
    "num_hidden_layers": (1, 2),
    "vocab_size": (9,),
    "tie_word_embeddings": BOTH,
}
# family -> (the fields it always gets, the fields it may get with their choices)
_LATENT = {
    "q_lora_rank": (None, 3, 8),
    "kv_lora_rank": (4, 7),
    "qk_nope_head_dim": (2, 6),
    "v_head_dim": (3, 8),
    "n_shared_experts": (1, 2),
    "first_k_dense_replace": (0, 1, 2),
    "attention_bias": BOTH,
}
SPACES: Mapping[str, tuple[Callable[[random.Random], Config], Mapping[str, tuple[object, ...]]]] = {
    "llama": (
        decoder,
        {
            "head_dim": (None, *WIDTHS),
            "attention_bias": BOTH,
            "mlp_bias": BOTH,
            "num_key_value_heads": (None,),
        },
    ),
    "mistral": (decoder, {"head_dim": (None, *WIDTHS)}),
    "mixtral": (
        decoder,
        {"head_dim": (None, *WIDTHS), "num_local_experts": (1, 3), "num_experts": (2, 4)},
    ),
    "qwen2": (decoder, {"num_key_value_heads": (None,), "use_sliding_window": BOTH}),
    "qwen3": (decoder, {"head_dim": WIDTHS, "attention_bias": BOTH}),
    "gemma": (decoder, {"head_dim": WIDTHS, "attention_bias": BOTH}),
    "gemma2": (decoder, {"head_dim": WIDTHS, "attention_bias": BOTH}),
    "qwen3_moe": (
        decoder,
        {
            "num_experts": (1, 5),
            "num_local_experts": (2,),
            "moe_intermediate_size": (3, 7),
            "head_dim": WIDTHS,
            "attention_bias": BOTH,
            "decoder_sparse_step": (1, 2, 3),
            "mlp_only_layers": ([], [0], [1, 2]),
        },
    ),
    "deepseek_v3": (
        latent,
        _LATENT,
    ),
    "deepseek_v2": (
        latent,
        {**_LATENT, "mlp_bias": BOTH},
    ),
    "gpt_oss": (
        routed,
        {
            "num_local_experts": (3, 5),
            "num_experts": (4,),
            "head_dim": WIDTHS,
            "attention_bias": BOTH,
            "sliding_window": (None, 5),
        },
    ),
    "glm4_moe": (
        routed,
        {
            "n_routed_experts": (3, 5),
            "moe_intermediate_size": (3, 7),
            "n_shared_experts": (1, 2),
            "first_k_dense_replace": (0, 1, 2),
            "head_dim": (8, 16),
            "attention_bias": BOTH,
            "use_qk_norm": BOTH,
            "partial_rotary_factor": (0.5, 0.25),
        },
    ),
    "smollm3": (
        wide_heads,
        {
            "attention_bias": BOTH,
            "mlp_bias": BOTH,
            "num_key_value_heads": (None,),
            "no_rope_layer_interval": (1, 2),
            "no_rope_layers": ([1, 0, 1, 1],),
            "use_sliding_window": BOTH,
            "sliding_window": (5,),
        },
    ),
    "gemma3_text": (
        decoder,
        {
            "head_dim": WIDTHS,
            "attention_bias": BOTH,
            "sliding_window_pattern": (1, 2, 6),
        },
    ),
    "qwen3_next": (
        routed,
        {
            "num_experts": (3, 5),
            "moe_intermediate_size": (3, 7),
            "shared_expert_intermediate_size": (2, 9),
            "head_dim": (8, 16),
            "attention_bias": BOTH,
            "decoder_sparse_step": (1, 2),
            "mlp_only_layers": ([], [0]),
            "linear_conv_kernel_dim": (2, 4),
            "linear_key_head_dim": (3, 8),
            "linear_value_head_dim": (2, 6),
            "linear_num_key_heads": (2,),
            "linear_num_value_heads": (4, 6),
            "full_attention_interval": (1, 2),
        },
    ),
    "llama4_text": (
        routed,
        {
            "num_experts_per_tok": (1, 2),
            "num_local_experts": (3, 5),
            "intermediate_size_mlp": (3, 9),
            "head_dim": WIDTHS,
            "attention_bias": BOTH,
            "interleave_moe_layer_step": (1, 2),
            "moe_layers": ([], [0, 2]),
            "no_rope_layers": ([], [1, 0, 1, 0]),
        },
    ),
    "phi": (
        wide_heads,
        {
            "qk_layernorm": BOTH,
            "partial_rotary_factor": (0.5, 0.25),
            "num_key_value_heads": (None,),
        },
    ),
    "phi3": (wide_heads, {"num_key_value_heads": (None,)}),
    "gpt2": (
        plain("n_embd", "n_head", 4),
        {
            "hidden_size": (8,),
            "n_layer": (1, 3),
            "num_hidden_layers": (2,),
            "n_inner": (None, 7),
            "n_positions": (5, 9),
            "vocab_size": (11,),
            "add_cross_attention": BOTH,
            "tie_word_embeddings": BOTH,
        },
    ),
    "bloom": (
        plain("hidden_size", "n_head", 4),
        {**_COMMON, "n_layer": (1, 3), "n_embed": (8,)},
    ),
    "falcon": (
        plain("hidden_size", "num_attention_heads", 8),
        {
            **_COMMON,
            "num_kv_heads": (1, 2),
            "new_decoder_architecture": BOTH,
            "multi_query": BOTH,
            "parallel_attn": BOTH,
            "bias": BOTH,
            "alibi": BOTH,
            "num_ln_in_parallel_attn": (1, 2),
            "ffn_hidden_size": (5,),
        },
    ),
    "gpt_neox": (
        plain("hidden_size", "num_attention_heads", 16),
        {
            **_COMMON,
            "intermediate_size": (5, 70),
            "attention_bias": BOTH,
            "rotary_pct": (0.25, 0.5, 1.0),
        },
    ),
    "opt": (
        plain("hidden_size", "num_attention_heads", 4),
        {
            **_COMMON,
            "ffn_dim": (5,),
            "max_position_embeddings": (7,),
            "word_embed_proj_dim": (None, 3),
            "do_layer_norm_before": BOTH,
            "_remove_final_layer_norm": BOTH,
            "enable_bias": BOTH,
            "layer_norm_elementwise_affine": BOTH,
        },
    ),
    "bert": (
        plain("hidden_size", "num_attention_heads", 4),
        {
            **_COMMON,
            "intermediate_size": (5,),
            "max_position_embeddings": (7,),
            "type_vocab_size": (1, 3),
        },
    ),
    "t5": (
        plain("d_model", "num_heads", 3),
        {
            "d_kv": (3,),
            "d_ff": (5,),
            "num_layers": (1, 2),
            "num_decoder_layers": (None, 1, 3),
            "vocab_size": (9,),
            "relative_attention_num_buckets": (4,),
            "feed_forward_proj": ("relu", "gated-gelu", "gated-silu"),
            "tie_word_embeddings": BOTH,
        },
    ),
}


def random_config(model_type: str, rng: random.Random) -> Config:
    """A config of the family with each optional field absent or one of its choices."""
    always, sometimes = SPACES[model_type]
    config = {"model_type": model_type, **always(rng)}
    for key, choices in sometimes.items():
        if rng.random() < 0.6:
            config[key] = rng.choice(choices)
    if model_type == "llama4_text" and config.get("no_rope_layers"):  # one of each block
        config["num_hidden_layers"] = len(config["no_rope_layers"])
    return config
