"""Configs at which families whose blocks differ are traced (``generate_family_profiles.py``).

Sets of widths that no two products share, and rows of blocks in which every kind is there twice:
its first block, and one like all that follow.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from zero_sizer.activations import kinds
from zero_sizer.models.sources.bundled import read_bundled
from zero_sizer.tracing.widths import PRODUCTS, Products

SETS = 3
_HEADS = {
    "all": ((6, 6), (11, 11), (14, 14)),
    "one": ((6, 1), (10, 1), (14, 1)),
    "some": ((6, 2), (15, 3), (10, 5)),
}
_PER_HEAD = (56, 48, 88)  # of the hidden size, where head_dim is free
_WIDTHS: Mapping[str, tuple[int, int, int]] = {
    "head_dim": (40, 80, 200),
    "intermediate_size": (592, 1072, 1328),
    "intermediate_size_mlp": (880, 656, 1136),
    "kv_lora_rank": (112, 176, 248),
    "moe_intermediate_size": (272, 464, 656),
    "n_group": (2, 4, 3),
    "n_routed_experts": (8, 20, 12),
    "n_shared_experts": (1, 2, 3),
    "num_experts_per_tok": (3, 2, 4),
    "num_local_experts": (8, 20, 12),
    "q_lora_rank": (144, 208, 304),
    "qk_nope_head_dim": (48, 24, 104),
    "qk_rope_head_dim": (16, 24, 56),
    "topk_group": (1, 2, 2),
    "v_head_dim": (24, 40, 88),
    "vocab_size": (1016, 1528, 2024),
}
_S, _F = "sliding_attention", "full_attention"
_DENSE_FIRST = {"num_hidden_layers": 4, "first_k_dense_replace": 2}
_SLIDING = {"num_hidden_layers": 4, "layer_types": [_S, _F, _S, _F]}
_UNROTATED = {"num_hidden_layers": 4, "no_rope_layers": [1, 0, 1, 0]}
_ROWS: Mapping[str, Mapping[str, Any]] = {
    "deepseek_v2": _DENSE_FIRST,
    "deepseek_v3": _DENSE_FIRST,
    "gemma3_text": _SLIDING,
    "glm4_moe": _DENSE_FIRST,
    "gpt_oss": _SLIDING,
    "llama4_text": _UNROTATED,
    "olmo3": _SLIDING,
    "smollm3": _UNROTATED,
}
_INTERLEAVED = {
    "num_hidden_layers": 6,
    "moe_layers": [1, 2, 4, 5],
    "no_rope_layers": [1, 1, 0, 1, 1, 0],
}
WINDOW = 1024  # beyond the points of the range before it
# Products of widths that these families have besides the others' (``tracing.family.PRODUCTS``).
OF_LATENTS: Products = (
    ("rope",),
    ("nope",),
    ("value_dim",),
    ("heads", "rope"),
    ("heads", "nope"),
    ("heads", "value_dim"),
    ("q_lora",),
    ("kv_lora",),
    ("hidden", "rope"),
    ("hidden", "q_lora"),
    ("hidden", "kv_lora"),
    ("q_lora", "heads", "head_dim"),
    ("kv_lora", "heads", "nope"),
    ("kv_lora", "heads", "value_dim"),
    ("hidden", "heads", "value_dim"),
)
OF_EXPERTS: Products = (
    ("groups",),
    ("top_groups",),
    ("shared_ffn",),
    ("hidden", "shared_ffn"),
    ("expert_ffn",),
    ("hidden", "expert_ffn"),
    ("experts", "expert_ffn"),
    ("dense_ffn",),
    ("hidden", "dense_ffn"),
)


def products(fields: Mapping[str, Any]) -> Products:
    """Products that a size of a family may be."""
    family = fields["model_type"]
    latents = OF_LATENTS if family.startswith("deepseek") else ()
    experts = OF_EXPERTS if family not in ("gemma3_text", "olmo3", "smollm3") else ()
    return (*PRODUCTS, *latents, *experts)


def resized(fields: Mapping[str, Any], kind: str, number: int) -> dict[str, Any]:
    """A config of one structure at the widths of set ``number``, with blocks in a mixed row."""
    family = fields["model_type"]
    heads, kv_heads = _HEADS[kind][number]
    is_latent = family.startswith("deepseek")
    given = {**fields, **({"topk_group": 1, "n_group": 1} if _has_groups(fields) else {})}
    changes = {key: sizes[number] for key, sizes in _WIDTHS.items() if given.get(key) is not None}
    if is_latent:  # a head_dim is what is rotated of it
        changes["head_dim"] = changes["qk_rope_head_dim"]
    is_free = is_latent or "head_dim" in fields
    hidden = heads * (_PER_HEAD[number] if is_free else _WIDTHS["head_dim"][number])
    row = _ROWS[family]
    if family == "llama4_text" and fields.get("interleave_moe_layer_step", 1) > 1:
        row = _INTERLEAVED
    window = "attention_chunk_size" if family == "llama4_text" else "sliding_window"
    return {
        **fields,
        **changes,
        **row,
        **(
            {window: WINDOW} if family in ("gemma3_text", "gpt_oss", "llama4_text", "olmo3") else {}
        ),
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "pad_token_id": 0,  # defaults lie in their own vocabularies only
    }


def _has_groups(fields: Mapping[str, Any]) -> bool:
    """Whether tokens choose groups of experts first."""
    said = fields["model_type"] in ("deepseek_v3", "glm4_moe")
    return said or fields.get("topk_method") == "group_limited_greedy"


def further() -> Iterator[tuple[str, dict[str, Any]]]:
    """Names and fields of well-known structures that no bundled model has as it is."""
    for name, family, head in (
        ("gemma-3-4b", "gemma3_text", "Gemma3ForCausalLM"),
        ("llama-4-scout", "llama4_text", "Llama4ForCausalLM"),
        ("llama-4-maverick", "llama4_text", "Llama4ForCausalLM"),
    ):
        text = read_bundled(name)["hf_config"]["text_config"]
        yield f"{name}'s text", {**text, "model_type": family, "architectures": [head]}
    moonlight = {**read_bundled("deepseek-v3")["hf_config"], "q_lora_rank": None}
    yield "moonlight-16b", moonlight


def realistic(widths: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """A model's widths, and each width by itself a quarter to four times as large."""
    yield dict(widths)
    for name, width in widths.items():
        for changed in (width // 4, width // 2, 2 * width, 4 * width):
            if changed:
                yield {**widths, name: changed}


def is_mixed(fields: Mapping[str, Any]) -> bool:
    """Whether a family is traced by kinds of blocks."""
    return fields["model_type"] in kinds.FAMILIES
