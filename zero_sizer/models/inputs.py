"""Inputs of a model besides tokens, as its config.json tells."""

from collections.abc import Iterator, Mapping
from typing import Any

from zero_sizer.models.spec import ModelSpec

_IMAGES, _AUDIO, _LATENTS = "images", "audio", "latents"

# Fields that only configs of such models have, at any depth.
_FIELDS = {
    "vision_config": _IMAGES,
    "mm_vision_tower": _IMAGES,
    "vision_tower": _IMAGES,
    "image_size": _IMAGES,
    "patch_size": _IMAGES,
    "num_channels": _IMAGES,
    "image_token_id": _IMAGES,
    "image_token_index": _IMAGES,
    "audio_config": _AUDIO,
    "audio_encoder": _AUDIO,
    "num_mel_bins": _AUDIO,
    "sampling_rate": _AUDIO,
    "feat_extract_norm": _AUDIO,
    "conv_stride": _AUDIO,
    "num_codebooks": _AUDIO,
    "input_feat_per_channel": _AUDIO,
    "sample_size": _LATENTS,
    "latent_channels": _LATENTS,
    "cross_attention_dim": _LATENTS,
}

_NAMED = ("model_type", "architectures", "_class_name")  # one of them makes it a model's config


def besides_tokens(model: ModelSpec) -> str:
    """Images, audio or what else a model takes beside tokens or instead of them; empty for text.

    A config without a vocabulary is no text model's. Numbers, shapes and modules without a config
    are taken to be fed tokens, which is how they are run.
    """
    fields = model.hf_config
    if not any(fields.get(name) for name in _NAMED):
        return ""
    found = next((_FIELDS[name] for name in _names(fields) if name in _FIELDS), "")
    if not found and not any(name == "vocab_size" for name in _names(fields)):
        return "other inputs"
    return found


def _names(fields: Mapping[str, Any]) -> Iterator[str]:
    """Fields with a value, those of nested configs after the outer ones."""
    yield from (str(name) for name, value in fields.items() if value is not None)
    for value in fields.values():
        if isinstance(value, Mapping):
            yield from _names(value)
