"""Decoders whose blocks differ: which kind each is, and which widths only they have.

Blocks of one kind hold the same, but for the first of its kind, which makes what all share (a mask
that is recomputed, for one). So a family that was traced with every kind tells what any order
and any number of them hold.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from zero_sizer.models.layouts import layers
from zero_sizer.models.spec import ModelSpec

FAMILIES = frozenset(
    {
        "deepseek_v2",
        "deepseek_v3",
        "gemma3_text",
        "glm4_moe",
        "gpt_oss",
        "llama4_text",
        "olmo3",
        "smollm3",
    }
)
_NUMBERED = re.compile(r"\.(\d+)\.")
_FIRST, _LATER = 0, 1
# Beside the tensors' names, what decides which operators run, and what holds where it is not said.
_WORDS: Mapping[str, Mapping[str, Any]] = {
    "deepseek_v2": {"topk_method": "greedy"},
    "gemma3_text": {
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
        "use_bidirectional_attention": False,
    },
    "glm4_moe": {"use_qk_norm": False},
    "llama4_text": {"attn_temperature_tuning": True, "use_qk_norm": True},
}
# Widths of theirs, and the fields that say them; 0 where there are none.
_WIDTHS: Mapping[str, str] = {
    "nope": "qk_nope_head_dim",
    "rope": "qk_rope_head_dim",
    "value_dim": "v_head_dim",
    "q_lora": "q_lora_rank",
    "kv_lora": "kv_lora_rank",
    "groups": "n_group",
    "top_groups": "topk_group",
    "dense_ffn": "intermediate_size_mlp",
}
_GROUPS = {"deepseek_v3": (8, 4), "glm4_moe": (1, 1)}  # where a config does not say

# What a config of these families leaves out, as their classes fill it in (transformers 5.23).
PLAIN: Mapping[str, Any] = {"hidden_act": "silu", "attention_bias": False}
USUAL: Mapping[str, Mapping[str, Any]] = {
    "glm4": {**PLAIN, "attention_bias": True},
    "granite": PLAIN,
    "granitemoehybrid": {**PLAIN, "position_embedding_type": None},
    "olmo2": PLAIN,
    "olmo3": PLAIN,
    "seed_oss": {
        **PLAIN,
        "attention_bias": True,
        "attention_dropout": 0.1,
        "residual_dropout": 0.1,
    },
    "stablelm": {
        "hidden_act": "silu",
        "qk_layernorm": False,
        "use_parallel_residual": False,
    },
    "starcoder2": {"hidden_act": "gelu_pytorch_tanh"},
}
ROTATED: Mapping[str, float] = {  # a share of each head
    "gpt_neox": 0.25,
    "phi": 0.5,
    "glm4": 0.5,
    "glm4_moe": 0.5,
    "qwen3_next": 0.25,
    "stablelm": 0.25,
}
HEADS = {
    "glm4": "Glm4ForCausalLM",
    "granite": "GraniteForCausalLM",
    "granitemoehybrid": "GraniteMoeHybridForCausalLM",
    "olmo2": "Olmo2ForCausalLM",
    "olmo3": "Olmo3ForCausalLM",
    "seed_oss": "SeedOssForCausalLM",
    "stablelm": "StableLmForCausalLM",
    "starcoder2": "Starcoder2ForCausalLM",
}


class Kinds(NamedTuple):
    """Kinds of a model's blocks.

    Attributes:
        said: of each kind, its attention and its tensors' names; in the order in which they run.
        row: which kind each block is.
    """

    said: tuple[tuple[str, tuple[str, ...]], ...]
    row: tuple[int, ...]


def kinds_of(spec: ModelSpec) -> Kinds:
    """The kinds of a model of ``FAMILIES``."""
    names: dict[int, list[str]] = {}
    for tensor in spec.parameters:
        found = _NUMBERED.search(tensor.name)
        if found is not None:
            names.setdefault(int(found.group(1)), []).append(tensor.name[found.end() :])
    labels = attention_labels(spec.hf_config)
    blocks = [(labels[number], tuple(sorted(names[number]))) for number in sorted(names)]
    said = tuple(dict.fromkeys(blocks))
    return Kinds(said, tuple(said.index(block) for block in blocks))


def attention_labels(fields: Mapping[str, Any]) -> list[str]:
    """Attention of each layer, by name."""
    rotated = layers.rotated_layers(fields)
    kinds = layers.attention_kinds(fields)
    return [kind if on else f"{kind}, not rotated" for kind, on in zip(kinds, rotated, strict=True)]


def words_of(spec: ModelSpec) -> dict[str, Any]:
    """Fields that decide which operators run, in these families alone."""
    usual, fields = _WORDS.get(spec.arch.family, {}), spec.hf_config
    said = {key: fields.get(key, default) for key, default in usual.items()}
    return {key: value if isinstance(value, str) else bool(value) for key, value in said.items()}


def names_outside(spec: ModelSpec) -> list[str]:
    """Names of the tensors outside of blocks."""
    return sorted(t.name for t in spec.parameters if not _NUMBERED.search(t.name))


def widths_of(spec: ModelSpec) -> dict[str, int]:
    """Widths that only these families have."""
    fields, family = spec.hf_config, spec.arch.family
    found = {width: fields.get(key) or 0 for width, key in _WIDTHS.items()}
    groups, top_groups = _GROUPS.get(family, (0, 0))
    shared = fields.get("n_shared_experts") or 0
    return {
        **found,
        "groups": found["groups"] or groups,
        "top_groups": found["top_groups"] or top_groups,
        "shared_ffn": shared * (fields.get("moe_intermediate_size") or 0),
    }


def followed_kinds(followed: Sequence[int], depth: int) -> list[int]:
    """Kind of each block of a list: 1 where something outside runs after it, 2 behind that, else 0.

    Args:
        followed: numbers of the blocks after which something runs.
        depth: how many blocks.
    """
    return [
        1 if number in followed else 2 if number - 1 in followed else 0 for number in range(depth)
    ]


def stand_ins(traced: Sequence[int], row: Sequence[int]) -> list[int]:
    """Which traced block stands for each block of a model.

    Args:
        traced: kind of each traced block; every kind is there twice at least, or never again.
        row: kind of each block of the model.
    """
    places: dict[int, list[int]] = {}
    for index, kind in enumerate(traced):
        places.setdefault(kind, []).append(index)
    met: set[int] = set()
    found = []
    for kind in row:
        of_kind = places[kind]
        found.append(of_kind[min(_LATER if kind in met else _FIRST, len(of_kind) - 1)])
        met.add(kind)
    return found
