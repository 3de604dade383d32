"""The widths and flags that each family's layout reads, from a config's resolved fields."""

from collections.abc import Callable, Mapping
from typing import Any

from zero_sizer.errors import InputError
from zero_sizer.models.layouts import layers
from zero_sizer.models.sources.config_file import config_defaults

Fields = Mapping[str, Any]


def widths_of(fields: Fields, where: str) -> dict[str, int]:
    """Name -> width, or 0/1 flag, for the layout of ``fields["model_type"]``.

    Raises:
        InputError: a field that only this family has is wrong.
    """
    family = fields["model_type"]
    common = {
        "hidden": fields["hidden_size"],
        "layers": fields["num_hidden_layers"],
        "heads": fields["num_attention_heads"],
        "vocab": fields["vocab_size"],
        "tie": int(fields["tie_word_embeddings"]),
        "positions": fields.get("max_position_embeddings", 0),
        "2hidden": 2 * fields["hidden_size"],
        "3hidden": 3 * fields["hidden_size"],
    }
    return {**common, **_SPECIFIC[family](fields, where)}


def _decoder(fields: Fields, where: str) -> dict[str, int]:
    heads, kv_heads = fields["num_attention_heads"], fields["num_key_value_heads"]
    plain_head = fields["hidden_size"] // heads
    head_dim = fields.get("head_dim") or plain_head
    _refuse_odd_rotation(fields, where)
    ffn = fields["intermediate_size"]
    bias = int(fields.get("attention_bias", False))
    return {
        "q": heads * head_dim,
        "kv": kv_heads * head_dim,
        "qkv": (heads + 2 * kv_heads) * head_dim,
        "head_dim": head_dim,
        "plain_head": plain_head,
        "rotary": _half(head_dim),
        "ffn": ffn,
        "2ffn": 2 * ffn,
        "qkv_bias": bias,
        "o_bias": bias,
        "mlp_bias": int(fields.get("mlp_bias", False)),
        "sparse": 0,
        "qk_layernorm": int(fields.get("qk_layernorm", False)),
    }


def _refuse_odd_rotation(fields: Fields, where: str) -> None:
    """As transformers does, where the config says ``head_dim`` and all of it is rotated."""
    head_dim = fields.get("head_dim")
    if head_dim is None or head_dim <= 4 or head_dim % 2 == 0:
        return
    if _rotated(head_dim, fields, "partial_rotary_factor", 1.0, where) == head_dim:
        raise InputError(f"head_dim {head_dim} is odd and cannot be rotated", where=where)


def _half(rotated: int) -> int:
    """Frequencies of ``rotated`` dimensions: one for every two."""
    return (rotated + 1) // 2


def _rotated(head_dim: int, fields: Fields, key: str, default: float, where: str) -> int:
    """Rotated dimensions of a head where a config rotates only a part of them."""
    rope = fields.get("rope_scaling") or fields.get("rope_parameters")
    nested = rope.get("partial_rotary_factor") if isinstance(rope, Mapping) else None
    part = nested if nested is not None else fields.get(key, default)
    if type(part) not in (int, float) or not 0 <= part <= 1:
        raise InputError(f"{key} is {part!r}, not a number from 0 to 1", where=where)
    return int(head_dim * part)


def _qwen2(fields: Fields, where: str) -> dict[str, int]:
    return {**_decoder(fields, where), "qkv_bias": 1, "o_bias": 0}


def _phi(fields: Fields, where: str) -> dict[str, int]:
    widths = _decoder(fields, where)
    default = 0.5 if fields["model_type"] == "phi" else 1.0
    rotated = _rotated(widths["head_dim"], fields, "partial_rotary_factor", default, where)
    return {**widths, "rotary": _half(rotated)}


def _mixtral(fields: Fields, where: str) -> dict[str, int]:
    return {
        **_decoder(fields, where),
        "experts": fields["num_local_experts"],
        "expert_ffn": fields["intermediate_size"],
        "expert_2ffn": 2 * fields["intermediate_size"],
        "sparse": 1,
    }


def _qwen3_moe(fields: Fields, where: str) -> dict[str, int]:
    experts, step = fields["num_experts"], fields["decoder_sparse_step"]
    dense = fields["mlp_only_layers"]
    if not all(type(index) is int for index in dense):
        raise InputError(f"mlp_only_layers is {dense!r}, not a list of layers", where=where)
    sparse = _sparse(fields, lambda i: experts > 0 and i not in dense and (i + 1) % step == 0)
    return {**_decoder(fields, where), **_experts(fields, experts), **sparse}


def _sparse(fields: Fields, has_experts: Callable[[int], bool]) -> dict[str, int]:
    return {f"sparse.{i}": int(has_experts(i)) for i in range(fields["num_hidden_layers"])}


def _experts(fields: Fields, count: int) -> dict[str, int]:
    width = fields["moe_intermediate_size"]
    return {"experts": count, "expert_ffn": width, "expert_2ffn": 2 * width}


def _deepseek_v3(fields: Fields, where: str) -> dict[str, int]:
    heads, q_lora, kv_lora = (
        fields["num_attention_heads"],
        fields["q_lora_rank"],
        fields["kv_lora_rank"],
    )
    nope, rope, v = (
        fields["qk_nope_head_dim"],
        fields["qk_rope_head_dim"],
        fields["v_head_dim"],
    )
    first_sparse = fields["first_k_dense_replace"]
    if v is None or first_sparse is None:
        raise InputError("v_head_dim and first_k_dense_replace cannot be null", where=where)
    return {
        **_decoder(fields, where),
        **_experts(fields, fields["n_routed_experts"]),
        "shared_ffn": fields["moe_intermediate_size"] * fields["n_shared_experts"],
        "q": heads * (nope + rope),
        "q_lora": q_lora or 0,
        "kv_lora": kv_lora,
        "kv_a": kv_lora + rope,
        "kv_b": heads * (nope + v),
        "v": heads * v,
        "rotary": _half(rope),
        **_sparse(fields, lambda i: i >= first_sparse),
    }


def _deepseek_v2(fields: Fields, where: str) -> dict[str, int]:
    return {**_deepseek_v3(fields, where), "mlp_bias": int(fields["mlp_bias"])}


def _gpt_oss(fields: Fields, where: str) -> dict[str, int]:
    experts = {"moe_intermediate_size": fields["intermediate_size"]}
    return {**_decoder(fields, where), **_experts(experts, fields["num_local_experts"])}


def _glm4_moe(fields: Fields, where: str) -> dict[str, int]:
    widths = _decoder(fields, where)
    rotated = _rotated(widths["head_dim"], fields, "partial_rotary_factor", 0.5, where)
    first_sparse = fields["first_k_dense_replace"]
    return {
        **widths,
        **_experts(fields, fields["n_routed_experts"]),
        "shared_ffn": fields["moe_intermediate_size"] * fields["n_shared_experts"],
        "rotary": _half(rotated),
        "qk_norm": int(fields["use_qk_norm"]),
        "o_bias": 0,
        **_sparse(fields, lambda i: i >= first_sparse),
    }


def _gemma3(fields: Fields, where: str) -> dict[str, int]:
    present = set(layers.attention_kinds(fields, where))
    flags = {kind: int(kind in present) for kind in (layers.FULL, layers.SLIDING)}
    return {**_decoder(fields, where), **flags}


def _qwen3_next(fields: Fields, where: str) -> dict[str, int]:
    widths = _qwen3_moe({**fields, "mlp_only_layers": fields["mlp_only_layers"] or []}, where)
    rotated = _rotated(widths["head_dim"], fields, "partial_rotary_factor", 0.25, where)
    heads = fields["linear_num_value_heads"]
    key = fields["linear_num_key_heads"] * fields["linear_key_head_dim"]
    value = heads * fields["linear_value_head_dim"]
    kinds = layers.attention_kinds(fields, where)
    return {
        **widths,
        "2q": 2 * widths["q"],
        "rotary": _half(rotated),
        "shared_ffn": fields["shared_expert_intermediate_size"],
        "linear_heads": heads,
        "linear_value": fields["linear_value_head_dim"],
        "linear_out": value,
        "kernel": fields["linear_conv_kernel_dim"],
        "conv": 2 * key + value,
        "qkvz": 2 * key + 2 * value,
        "ba": 2 * heads,
        **{f"linear.{i}": int(kind == layers.LINEAR) for i, kind in enumerate(kinds)},
    }


def _llama4(fields: Fields, where: str) -> dict[str, int]:
    experts = {"moe_intermediate_size": fields["intermediate_size"]}
    sparse = layers.sparse_layers(fields, where)
    return {
        **_decoder(fields, where),
        **_experts(experts, fields["num_local_experts"]),
        "ffn": fields["intermediate_size_mlp"],
        **_sparse(fields, sparse.__contains__),
    }


def _gpt2(fields: Fields, where: str) -> dict[str, int]:
    inner = fields["n_inner"]
    return {
        "ffn": inner if inner is not None else 4 * fields["hidden_size"],
        "cross": int(fields["add_cross_attention"]),
    }


def _bloom(fields: Fields, where: str) -> dict[str, int]:
    return {"ffn": 4 * fields["hidden_size"]}


def _falcon(fields: Fields, where: str) -> dict[str, int]:
    hidden, heads = fields["hidden_size"], fields["num_attention_heads"]
    head_dim = hidden // heads
    _refuse_odd_rotation({**fields, "head_dim": head_dim}, where)
    if fields["new_decoder_architecture"]:
        qkv = (2 * fields["num_kv_heads"] + heads) * head_dim
    else:
        qkv = hidden + 2 * head_dim if fields["multi_query"] else 3 * hidden
    parallel = bool(fields["parallel_attn"])
    return {
        "qkv": qkv,
        "ffn": fields["ffn_hidden_size"],
        "bias": int(bool(fields["bias"])),
        "parallel": int(parallel),
        "two_norms": int(parallel and fields["num_ln_in_parallel_attn"] == 2),
        "rotary": _half(head_dim),
    }


def _gpt_neox(fields: Fields, where: str) -> dict[str, int]:
    head_dim = fields["hidden_size"] // fields["num_attention_heads"]
    bias = int(fields["attention_bias"])
    return {
        "ffn": fields["intermediate_size"],
        "qkv_bias": bias,
        "o_bias": bias,
        "rotary": _half(_rotated(head_dim, fields, "rotary_pct", 0.25, where)),
    }


def _opt(fields: Fields, where: str) -> dict[str, int]:
    word = fields["word_embed_proj_dim"]
    final = fields["do_layer_norm_before"] and not fields["_remove_final_layer_norm"]
    return {
        "word": word,
        "projects": int(word != fields["hidden_size"]),
        "positions_2": fields["max_position_embeddings"] + 2,  # OPT's positions start at 2
        "ffn": fields["ffn_dim"],
        "bias": int(fields["enable_bias"]),
        "affine": int(fields["layer_norm_elementwise_affine"]),
        "final_norm": int(final),
    }


def _bert(fields: Fields, where: str) -> dict[str, int]:
    return {
        "ffn": fields["intermediate_size"],
        "types": fields["type_vocab_size"],
        "pooler": 0,
        "next_sentence": 0,
    }


def _activations() -> list[str]:
    known: list[str] = config_defaults()["activations"]
    return known


def _t5(fields: Fields, where: str) -> dict[str, int]:
    activation = fields["feed_forward_proj"].split("-")
    gated = len(activation) == 2 and activation[0] == "gated"
    if not (gated or len(activation) == 1) or activation[-1] not in _activations():
        raise InputError(
            f"feed_forward_proj is {fields['feed_forward_proj']!r}, not an activation or "
            "gated-{activation}",
            where=where,
        )
    return {
        "inner": fields["num_heads"] * fields["d_kv"],
        "ffn": fields["d_ff"],
        "gated": int(gated),
        "buckets": fields["relative_attention_num_buckets"],
        "decoder_layers": fields["num_decoder_layers"],
        "first": 0,
        "first.0": 1,
    }


_SPECIFIC: Mapping[str, Callable[[Fields, str], dict[str, int]]] = {
    "llama": _decoder,
    "mistral": _decoder,
    "qwen3": _decoder,
    "gemma": _decoder,
    "gemma2": _decoder,
    "qwen2": _qwen2,
    "phi": _phi,
    "phi3": _phi,
    "mixtral": _mixtral,
    "qwen3_moe": _qwen3_moe,
    "deepseek_v2": _deepseek_v2,
    "deepseek_v3": _deepseek_v3,
    "gpt_oss": _gpt_oss,
    "glm4_moe": _glm4_moe,
    "smollm3": _decoder,
    "gemma3_text": _gemma3,
    "qwen3_next": _qwen3_next,
    "llama4_text": _llama4,
    "gpt2": _gpt2,
    "bloom": _bloom,
    "falcon": _falcon,
    "gpt_neox": _gpt_neox,
    "opt": _opt,
    "bert": _bert,
    "t5": _t5,
}
