"""From a model's config.json to what one sample feeds it."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from zero_sizer.models.feeds import audio, diffusion, language, vision
from zero_sizer.models.feeds.records import NOTHING_SAID, Feed, Said
from zero_sizer.models.spec import ModelSpec
from zero_sizer.util.identity import Identity

_KINDS = (
    vision.classification,
    vision.contrastive,
    audio.whisper,
    audio.waves,
    language.vision_language,
    language.encoder_decoder,
    diffusion.denoiser,
)


def feed_of(model: ModelSpec, said: Said = NOTHING_SAID) -> Feed | None:
    """Inputs of one sample; None for tokens and labels alone, and where they are not known.

    Args:
        model: whose config is read.
        said: what the user says of a sample.
    """
    return _feed(Identity(model), said)


@lru_cache(maxsize=64)
def _feed(model: Identity, said: Said) -> Feed | None:
    fields: Mapping[str, Any] = model.of.hf_config
    name = class_name(fields)
    found = (kind(fields, name, said) for kind in _KINDS)
    return next((feed for feed in found if feed is not None), None)


def class_name(fields: Mapping[str, Any]) -> str:
    """Class that is trained, as the config names it."""
    named = fields.get("architectures")
    return str(named[0]) if isinstance(named, list) and named else ""
