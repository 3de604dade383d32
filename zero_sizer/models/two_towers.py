"""CLIP and SigLIP: a tower of images beside one of captions, and the tower of images alone."""

from collections.abc import Mapping
from dataclasses import replace

from zero_sizer.models.stacked_row import Stacked

_TOWER = {
    "hidden": "vision_config.hidden_size",
    "ffn": "vision_config.intermediate_size",
    "heads": "vision_config.num_attention_heads",
}
_PATCH = {
    "patch": (
        "vision_config.num_channels",
        "vision_config.patch_size",
        "vision_config.patch_size",
    ),
}
_SIDES = {"side": "vision_config.patch_size"}
_TOWER_DEPTH = {"vision_model.encoder.layers": "vision_config.num_hidden_layers"}

CLIP = Stacked(
    heads=("CLIPModel",),
    widths={
        "hidden": "text_config.hidden_size",
        "ffn": "text_config.intermediate_size",
        "heads": "text_config.num_attention_heads",
        "vocab": "text_config.vocab_size",
        "positions": "text_config.max_position_embeddings",
        "projection": "projection_dim",
        **{f"tower_{name}": path for name, path in _TOWER.items()},
        **_PATCH,
    },
    depths={
        **_TOWER_DEPTH,
        "text_model.encoder.layers": "text_config.num_hidden_layers",
    },
    sides=_SIDES,
    words=("text_config.hidden_act", "vision_config.hidden_act"),
    rates=("text_config.attention_dropout", "vision_config.attention_dropout"),
    lengths={"tower_": (("rows",), ("patches",))},
    pairs=(
        ("hidden", "vocab"),
        ("hidden", "positions"),
        ("hidden", "projection"),
        ("tower_hidden", "projection"),
        ("patch", "tower_hidden"),
    ),
    nested={"text_config": "clip_text_model", "vision_config": "clip_vision_model"},
    read=("text_config.max_position_embeddings", "vision_config.image_size"),
)

# The captions' head is as wide as the tower of images: the two outputs are multiplied.
SIGLIP = replace(
    CLIP,
    heads=("SiglipModel",),
    widths={name: path for name, path in CLIP.widths.items() if name != "projection"},
    words=(*CLIP.words, "vision_config.vision_use_head"),
    lengths={"tower_": (("patches",),)},
    pairs=(
        ("hidden", "vocab"),
        ("hidden", "positions"),
        ("hidden", "tower_hidden"),
        ("patch", "tower_hidden"),
    ),
    nested={"text_config": "siglip_text_model", "vision_config": "siglip_vision_model"},
    alike={"text_config.projection_size": ("tower_hidden", "hidden")},
)


def _classifier(of: Stacked, name: str, more: tuple[str, ...] = ()) -> Stacked:
    """The tower of images with a layer that classifies behind it."""
    return Stacked(
        heads=(name,),
        widths={**_TOWER, **_PATCH, "labels": "num_labels"},
        depths=_TOWER_DEPTH,
        sides=_SIDES,
        words=("vision_config.hidden_act", *more),
        rates=("vision_config.attention_dropout",),
        lengths={"": of.lengths["tower_"]},
        pairs=(("hidden", "labels"), ("patch", "hidden")),
        nested={"vision_config": of.nested["vision_config"]},
        constant=("problem_type",),
        read=("vision_config.image_size",),
    )


CLASSIFIERS: Mapping[tuple[str, str], Stacked] = {
    ("clip", "CLIPForImageClassification"): _classifier(CLIP, "CLIPForImageClassification"),
    ("siglip", "SiglipForImageClassification"): _classifier(
        SIGLIP, "SiglipForImageClassification", ("vision_config.vision_use_head",)
    ),
}
