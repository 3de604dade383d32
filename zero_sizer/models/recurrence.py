"""Layers of which no closed form of attention knows what they keep."""

from collections.abc import Mapping
from typing import Any

from zero_sizer.models.spec import ModelSpec

_FIELDS = (
    "linear_num_value_heads",  # Qwen3-Next's and Qwen3.5's gated delta rule
    "mamba_d_state",
    "mamba_state_dim",
    "ssm_state_size",
    "state_size",
    "lru_width",
    "attention_hidden_size",  # RWKV's
)


_INDEXED = "index_topk"  # DeepSeek's sparse attention, of DeepSeek-V3.2 and GLM-5


def beyond_closed_form(model: ModelSpec) -> str:
    """Words for layers that no closed form of attention knows; empty if it knows all.

    Some carry a state: where their own kernels are not installed, torch computes them in fp32,
    chunk by chunk, and keeps a state of each chunk for backward. Others attend to tokens that an
    indexer picks, whose scores are a square of the sequence for each of its heads, in fp32
    (transformers 5.23 modeling_glm_moe_dsa.py:228).
    """
    nested: Any = model.hf_config.get("text_config")
    texts = (model.hf_config, nested if isinstance(nested, Mapping) else {})
    if any(fields.get(name) for fields in texts for name in _FIELDS):
        return "carry a state along the sequence (linear attention, state spaces)"
    if any(fields.get(_INDEXED) for fields in texts):
        return "attend to tokens that an indexer picks (sparse attention)"
    return ""
