"""Layers that pass a state along the sequence: linear attention, state spaces, recurrences."""

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


def has_recurrence(model: ModelSpec) -> bool:
    """True if some layers carry a state, which no closed form of attention knows.

    Where their own kernels are not installed, torch computes them in fp32, chunk by chunk, and
    keeps a state of each chunk for backward.
    """
    nested: Any = model.hf_config.get("text_config")
    texts = (model.hf_config, nested if isinstance(nested, Mapping) else {})
    return any(fields.get(name) for fields in texts for name in _FIELDS)
