"""Models fed images alone, or images and captions."""

from collections.abc import Mapping
from typing import Any

from zero_sizer.models.feeds.fields import nested, square, whole
from zero_sizer.models.feeds.records import Feed, Images, Input, Said, ids

_CLASSIFIES = "ForImageClassification"
# DeiT has one for distillation.
_CLASS_TOKENS = {"vit": 1, "deit": 2, "dinov2": 1, "clip": 1, "siglip": 0}
_PATCH = {"clip": 32}  # where a config does not say; of others 16
CONTRASTIVE = ("CLIPModel", "SiglipModel", "ChineseCLIPModel", "AltCLIPModel")


def classification(fields: Mapping[str, Any], name: str, said: Said) -> Feed | None:
    """Pixels and one label: run_image_classification.py's batch."""
    if not name.endswith(_CLASSIFIES):
        return None
    of = nested(fields, "vision_config") or fields
    height, width = square(of, "image_size", 224)
    images = Images(1, height, width) if said.images is None else _sized(said.images, height, width)
    shape = (whole(of, "num_channels", "in_chans", default=3), images.height, images.width)
    pixels = Input(name="pixel_values", shape=shape)  # type: ignore[arg-type]  # both are stated
    return Feed(
        inputs=(pixels, Input(name="labels", is_integer=True)),
        fewest=0,
        brief=f"1 image of {images.height} x {images.width}",
        about=f"1 image of {images.height} x {images.width}{_patches(of, images)}",
        measures=_measures(fields, of, images),
        said={"images": images.about},
        free=("images",),
    )


def contrastive(fields: Mapping[str, Any], name: str, said: Said) -> Feed | None:
    """Pixels and a caption: run_clip.py's batch."""
    if name not in CONTRASTIVE:
        return None
    vision, text = nested(fields, "vision_config"), nested(fields, "text_config")
    height, width = square(vision, "image_size", 224)
    longest = whole(text, "max_position_embeddings", default=77)
    return Feed(
        inputs=(ids(), Input(name="pixel_values", shape=(3, height, width))),
        options={"return_loss": True},
        most=longest,
        brief=f"1 image of {height} x {width}",
        about=f"1 image of {height} x {width} and a caption",
        measures=_measures(fields, vision, Images(1, height, width)),
        said={"images": Images(1, height, width).about},
    )


def _sized(images: Images, height: int, width: int) -> Images:
    return Images(1, images.height or height, images.width or images.height or width)


def _measures(
    fields: Mapping[str, Any], tower: Mapping[str, Any], images: Images
) -> dict[str, int]:
    """Patches, and the rows that they and the class's tokens are; of the config's own size."""
    kind = str(fields.get("model_type", ""))
    size = square(tower, "image_size", 224)
    if kind not in _CLASS_TOKENS or size != (images.height, images.width):
        return {}
    side, _ = square(tower, "patch_size", _PATCH.get(kind, 16))
    patches = size[0] // side * (size[1] // side)
    pixels = size[0] * size[1] * whole(tower, "num_channels", default=3)
    own = _CLASS_TOKENS[kind]
    rows = {"rows": patches + own} if own else {}
    return {"patches": patches, **rows, "pixels": pixels}


def _patches(fields: Mapping[str, Any], images: Images) -> str:
    side, _ = square(fields, "patch_size", 16 if fields.get("model_type") in _CLASS_TOKENS else 0)
    if not side or not images.height or not images.width:
        return ""
    return f", {images.height // side * (images.width // side)} patches"
