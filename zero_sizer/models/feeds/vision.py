"""Models fed images alone, or images and captions."""

from collections.abc import Mapping
from typing import Any

from zero_sizer.models.feeds.fields import nested, square, whole
from zero_sizer.models.feeds.records import Feed, Images, Input, Said, ids

_CLASSIFIES = "ForImageClassification"
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
        said={"images": Images(1, height, width).about},
    )


def _sized(images: Images, height: int, width: int) -> Images:
    return Images(1, images.height or height, images.width or images.height or width)


def _patches(fields: Mapping[str, Any], images: Images) -> str:
    side, _ = square(fields, "patch_size")
    if not side or not images.height or not images.width:
        return ""
    return f", {images.height // side * (images.width // side)} patches"
