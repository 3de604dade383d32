"""CLIP as DeepSpeed 0.19.8 takes it: its scale has a dimension (``parameter-without-dimensions``).

Factories for simulated runs; every parameter has as many elements as in transformers' class.
"""

from typing import Any

import torch
from transformers import CLIPConfig, CLIPModel

from zero_sizer.models.sources.bundled import read_bundled


class ScaledCLIP(CLIPModel):  # type: ignore[misc]  # transformers is not typed
    """``CLIPModel`` whose ``logit_scale`` is a vector of one element."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.logit_scale = torch.nn.Parameter(self.logit_scale.detach().reshape(1))


def _built(name: str) -> Any:
    fields = {k: v for k, v in read_bundled(name)["hf_config"].items() if k != "model_type"}
    return ScaledCLIP._from_config(CLIPConfig(**fields), attn_implementation="sdpa")


def base() -> Any:
    """CLIP ViT-B/32."""
    return _built("clip-vit-base")


def large() -> Any:
    """CLIP ViT-L/14."""
    return _built("clip-vit-large")
