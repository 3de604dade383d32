"""The widths of a Hugging Face config, under one name each."""

from collections.abc import Mapping
from typing import Any

from zero_sizer.errors import InputError
from zero_sizer.models.spec import Architecture
from zero_sizer.util.spelling import shown

# Each width's spellings over the families, the most specific first.
_SPELLINGS: Mapping[str, tuple[str, ...]] = {
    "num_layers": ("num_hidden_layers", "n_layer", "num_layers"),
    "hidden": ("hidden_size", "n_embd", "d_model"),
    "heads": ("num_attention_heads", "n_head", "num_heads"),
    "kv_heads": ("num_key_value_heads", "num_kv_heads"),
    "head_dim": ("head_dim", "d_kv"),
    "ffn": ("intermediate_size", "ffn_dim", "d_ff", "ffn_hidden_size", "n_inner"),
    "vocab": ("vocab_size",),
    "num_experts": ("num_local_experts", "num_experts", "n_routed_experts"),
    "experts_per_token": ("num_experts_per_tok",),
    "expert_ffn": ("moe_intermediate_size",),
    "max_positions": ("max_position_embeddings", "n_positions"),
    "decoder_layers": ("num_decoder_layers",),
}
_DROPOUTS = ("hidden_dropout", "hidden_dropout_prob", "resid_pdrop", "dropout_rate", "dropout")
_GATED_FAMILIES = """
llama mistral mixtral qwen2 qwen3 qwen3_moe qwen3_next deepseek_v2 deepseek_v3 phi3 gemma gemma2
gemma3_text glm4_moe gpt_oss llama4_text smollm3
"""
_GATED = frozenset(_GATED_FAMILIES.split())
_FFN_IS_4_HIDDEN = frozenset({"bloom", "falcon"})  # and wherever n_inner is null, as in GPT-2


def from_hf_config(fields: Mapping[str, Any]) -> Architecture:
    """Widths of ``fields``, a Hugging Face config with its class's defaults filled in."""
    found: dict[str, Any] = {name: _width(fields, keys) for name, keys in _SPELLINGS.items()}
    family = str(fields.get("model_type", ""))
    hidden, heads = found["hidden"], found["heads"]
    if fields.get("qk_nope_head_dim"):  # latent attention: a query head is both parts
        found["head_dim"] = fields["qk_nope_head_dim"] + fields["qk_rope_head_dim"]
    elif found["head_dim"] is None and hidden and heads:
        found["head_dim"] = hidden // heads
    if found["kv_heads"] is None:
        found["kv_heads"] = 1 if _one_kv_head(family, fields) else heads
    if found["ffn"] is None and hidden and ("n_inner" in fields or family in _FFN_IS_4_HIDDEN):
        found["ffn"] = 4 * hidden
    if found["num_experts"] and found["expert_ffn"] is None:
        found["expert_ffn"] = found["ffn"]
    found["num_experts"] = found["num_experts"] or 0
    found["experts_per_token"] = found["experts_per_token"] or 0
    return Architecture(
        family=family,
        gated_mlp=family in _GATED or str(fields.get("feed_forward_proj", "")).startswith("gated"),
        tied_embeddings=bool(fields.get("tie_word_embeddings", False)),
        dropout=float(_first(fields, _DROPOUTS) or 0.0),
        **found,
    )


def _width(fields: Mapping[str, Any], keys: tuple[str, ...]) -> int | None:
    """A width; None where a config lists one for each layer, or says nothing."""
    key = next((key for key in keys if fields.get(key) is not None), None)
    value = None if key is None else fields[key]
    if value is None or isinstance(value, list | tuple):
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise InputError(f"{key} is {shown(value)}, not a whole number")
    return value


def _first(fields: Mapping[str, Any], keys: tuple[str, ...]) -> Any:
    return next((fields[key] for key in keys if fields.get(key) is not None), None)


def _one_kv_head(family: str, fields: Mapping[str, Any]) -> bool:
    """Falcon's multi-query attention, which its ``num_kv_heads`` does not say."""
    return (
        family == "falcon"
        and bool(fields.get("multi_query"))
        and not fields.get("new_decoder_architecture")
    )
