"""Facts that a batch tells of the job: its rows, its tokens, whether they are padded or packed."""

from collections.abc import Mapping
from typing import Any

import torch

_TOKENS = ("input_ids", "inputs_embeds", "input", "decoder_input_ids", "input_features")


def shape_of(batch: Mapping[str, Any]) -> tuple[int, int] | None:
    """Rows and tokens of each; None where the batch has no such tensor."""
    named = [batch[name] for name in _TOKENS if name in batch]
    for value in named:
        if isinstance(value, torch.Tensor) and value.dim() >= 2:
            return int(value.shape[0]), int(value.shape[1])
    return None


def sequences_of(batch: Mapping[str, Any]) -> str:
    """``padded`` where the mask hides something, ``packed`` where positions begin anew."""
    mask, positions = batch.get("attention_mask"), batch.get("position_ids")
    if isinstance(mask, torch.Tensor) and mask.dim() == 2 and bool((mask == 0).any()):
        return "padded"
    if isinstance(positions, torch.Tensor) and positions.dim() == 2:
        starts = (positions[:, 1:] <= positions[:, :-1]).any()
        return "packed" if bool(starts) else "equal"
    return "equal"
