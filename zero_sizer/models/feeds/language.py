"""Language models that see: images among their tokens, or that read one text and write another."""

from collections.abc import Callable, Mapping
from dataclasses import field, replace
from typing import Any

from zero_sizer.models.feeds import resizing, tiles, windows
from zero_sizer.models.feeds.fields import nested, square, whole
from zero_sizer.models.feeds.records import Feed, Images, Input, Said, ids, labels
from zero_sizer.models.feeds.resizing import Bounds
from zero_sizer.util.records import dataclass

_TYPES = "mm_token_type_ids"


@dataclass(frozen=True, kw_only=True)
class _Picture:
    """One image as a model takes it.

    Attributes:
        inputs: tensors that it brings.
        tokens: of the sequence that it takes.
        height: pixels.
        width: pixels.
        around: further tokens that stand beside it.
        loops: see ``Feed``.
        calls: likewise.
        measures: likewise, of one image.
    """

    inputs: tuple[Input, ...]
    tokens: int
    height: int
    width: int
    around: int = 0
    loops: bool = False
    calls: int = 1
    measures: Mapping[str, int] = field(default_factory=dict)


def vision_language(fields: Mapping[str, Any], name: str, said: Said) -> Feed | None:
    """Token ids with places for each image, its pixels, and a label for every token."""
    kind = str(fields.get("model_type", ""))
    if kind in _TEXT_ALONE and said.images is not None and not said.images.count:
        return _without_images(said.images)
    if kind not in _PICTURES or not name.endswith("ForConditionalGeneration"):
        return None
    images = said.images or Images()
    if not images.count:
        return _without_images(images)
    bounds = Bounds.of(said)
    of = _PICTURES[kind](fields, resizing.before_the_processor(images, kind, bounds), bounds)
    token = _image_token(fields)
    runs: list[tuple[int, int]] = []
    for _ in range(images.count):
        runs += [(0, of.around), (token, of.tokens)] if of.around else [(token, of.tokens)]
    seen = Images(images.count, of.height, of.width)
    taken = images.count * of.tokens
    types = [(0 if value == 0 else 1, count) for value, count in runs]
    inputs = [ids(runs), labels(), *of.inputs]
    if kind in _TYPED:
        inputs.append(Input(name=_TYPED[kind], shape=("s",), is_integer=True, begins=tuple(types)))
    return Feed(
        inputs=tuple(inputs),
        loops=of.loops,
        calls=images.count * of.calls,
        fewest=sum(count for _, count in runs) + 1,
        brief=(
            brief := f"{images.count} image{'' if images.count == 1 else 's'} of {of.height} x "
            f"{of.width}"
        ),
        about=f"{brief}, {taken:,} of the tokens",
        measures={"images": images.count, **of.measures} if of.measures else {},
        said={"images": seen.about},
        free=("images",),
    )


def _without_images(images: Images) -> Feed:
    return Feed(
        inputs=(ids(), labels()),
        brief="no image",
        about="no image",
        said={"images": images.about},
        free=("images",),
    )


def _image_token(fields: Mapping[str, Any]) -> int:
    return whole(fields, "image_token_id", "image_token_index", default=1)


def _llava(fields: Mapping[str, Any], images: Images, bounds: Bounds) -> _Picture:
    """Resized to what the tower takes, whatever the image is."""
    tower = nested(fields, "vision_config")
    height, width = square(tower, "image_size", 336)
    patch, _ = square(tower, "patch_size", 14)
    per_image = (height // patch) * (width // patch)
    measures = {"patches": per_image, "rows": per_image + 1, "pixels": 3 * height * width}
    per_image += fields.get("vision_feature_select_strategy") == "full"
    found = _fixed(fields, images, per_image, (height, width))
    return replace(found, measures=measures)


def _gemma(fields: Mapping[str, Any], images: Images, bounds: Bounds) -> _Picture:
    """Pooled to so many tokens as the config says (PaliGemma: the tower's patches)."""
    tower = nested(fields, "vision_config")
    height, width = square(tower, "image_size", 224)
    patch, _ = square(tower, "patch_size", 14)
    per_image = whole(fields, "mm_tokens_per_image", default=(height // patch) * (width // patch))
    return _fixed(fields, images, per_image, (height, width))


def _internvl(fields: Mapping[str, Any], images: Images, bounds: Bounds) -> _Picture:
    """Tiles, each half the tower's patches each way; one where no size is stated."""
    tower = nested(fields, "vision_config")
    height, width = square(tower, "image_size", 448)
    patch, _ = square(tower, "patch_size", 14)
    ratio = fields.get("downsample_ratio")
    ratio = ratio if isinstance(ratio, float) and 0 < ratio <= 1 else 0.5
    of = (images.height or height, images.width or images.height or width)
    per_tile = int((height // patch) * ratio) * int((width // patch) * ratio)
    count = tiles.internvl(*of, height)
    pixels = Input(name="pixel_values", shape=(3, height, width), rows=images.count * count)
    tokens = count * per_tile
    return _Picture(inputs=(pixels,), tokens=tokens, height=of[0], width=of[1], around=2)


def _llama4(fields: Mapping[str, Any], images: Images, bounds: Bounds) -> _Picture:
    """Tiles of a canvas, and the whole once more where there are several.

    Each has the tower's patches pooled by its ratio of pixel shuffling; one where no size is
    stated. A token stands behind each tile, two before the whole and one at the end.
    """
    tower = nested(fields, "vision_config")
    of_tile, _ = square(tower, "image_size", 336)
    patch, _ = square(tower, "patch_size", 14)
    ratio = tower.get("pixel_shuffle_ratio")
    ratio = ratio if isinstance(ratio, float) and 0 < ratio <= 1 else 0.5
    of = (images.height or of_tile, images.width or images.height or of_tile)
    rows, columns = tiles.llama4(*of, of_tile)
    cut = rows * columns if rows * columns > 1 else 0
    per_tile = int((of_tile // patch) ** 2 * ratio**2)
    pixels = Input(name="pixel_values", shape=(3, of_tile, of_tile), rows=images.count * (cut + 1))
    return _Picture(
        inputs=(pixels,),
        tokens=(cut + 1) * per_tile,
        height=of[0],
        width=of[1],
        around=cut + 3,
    )


def _pixtral(fields: Mapping[str, Any], images: Images, bounds: Bounds) -> _Picture:
    """Patches of the image, merged by squares; a token behind each row of the merged.

    Its processor rounds each side up to whole merged patches, and shrinks what is larger than the
    tower's size. Several images are padded to one size and cut again.
    """
    tower = nested(fields, "vision_config")
    longest, _ = square(tower, "image_size", 1540)
    patch, _ = square(tower, "patch_size", 14)
    step = patch * whole(fields, "spatial_merge_size", default=2)
    height = images.height or min(resizing.side_of(bounds.most), longest)
    width = images.width or height
    over = max(height, width, longest)
    rows, columns = (-(-(of * longest // over) // step) for of in (height, width))
    pixels = Input(name="pixel_values", shape=(3, rows * step, columns * step), rows=images.count)
    sizes = Input(
        name="image_sizes",
        shape=(2,),
        rows=images.count,
        is_integer=True,
        begins=((rows * step, 1), (columns * step, 1)),
    )
    return _Picture(
        inputs=(pixels, sizes),
        tokens=rows * columns,
        height=rows * step,
        width=columns * step,
        around=rows,
        loops=True,
    )


def _fixed(
    fields: Mapping[str, Any], images: Images, tokens: int, size: tuple[int, int]
) -> _Picture:
    channels = whole(nested(fields, "vision_config"), "num_channels", default=3)
    pixels = Input(name="pixel_values", shape=(channels, *size), rows=images.count)
    return _Picture(inputs=(pixels,), tokens=tokens, height=size[0], width=size[1])


def _qwen(fields: Mapping[str, Any], images: Images, bounds: Bounds) -> _Picture:
    """Patches in a row, as many as the image has, merged by squares on the way to the tokens.

    Where nobody states a size, the largest that the bound allows, nearly square.
    """
    tower = nested(fields, "vision_config")
    is_older = fields.get("model_type") in ("qwen2_vl", "qwen2_5_vl")
    patch = whole(tower, "patch_size", default=14 if is_older else 16)
    merge = whole(tower, "spatial_merge_size", default=2)
    channels = whole(tower, "in_channels", "in_chans", default=3)
    depth = whole(tower, "temporal_patch_size", default=2)
    sides = resizing.sides_of_qwen(fields, images, patch * merge, bounds)
    rows, columns = (of // patch for of in sides)
    measures = {"patches": rows * columns, "grid_rows": rows, "grid_columns": columns}
    found = windows.lengths(fields, [rows // merge, columns // merge], patch, merge)
    measures |= windows.measures(found)
    pixels = Input(
        name="pixel_values",
        shape=(channels * depth * patch * patch,),
        rows=images.count * rows * columns,
    )
    grid = Input(
        name="image_grid_thw",
        shape=(3,),
        rows=images.count,
        is_integer=True,
        begins=((1, 1), (rows, 1), (columns, 1)),
    )
    return _Picture(
        inputs=(pixels, grid),
        tokens=rows * columns // merge**2,
        height=sides[0],
        width=sides[1],
        around=1,
        loops=True,
        measures=measures,
        calls=len(found) or 1,
    )


_Pictures = Callable[[Mapping[str, Any], Images, Bounds], _Picture]
_PICTURES: Mapping[str, _Pictures] = {
    **dict.fromkeys(("llava", "vipllava"), _llava),
    **dict.fromkeys(("gemma3", "paligemma"), _gemma),
    "internvl": _internvl,
    "llama4": _llama4,
    "mistral3": _pixtral,
    **dict.fromkeys(resizing.QWEN, _qwen),
}
_TEXT_ALONE = ("gemma4",)
"""Kinds whose images and sound are not derived, and whose text is where there are none."""
_TYPED = {
    **dict.fromkeys(("gemma3", "paligemma"), "token_type_ids"),
    **dict.fromkeys(resizing.QWEN, _TYPES),
}


def encoder_decoder(fields: Mapping[str, Any], name: str, said: Said) -> Feed | None:
    """Token ids for the encoder, labels of another length for the decoder."""
    if said.target_len is None or not fields.get("is_encoder_decoder", _is_t5(fields)):
        return None
    return Feed(
        inputs=(ids(), labels(said.target_len)),
        brief=f"{said.target_len:,} of the decoder",
        about=f"--seq-len tokens for the encoder, {said.target_len:,} for the decoder",
        said={"target_len": said.target_len},
        free=("target_len",),
    )


def _is_t5(fields: Mapping[str, Any]) -> bool:
    return fields.get("model_type") in ("t5", "mt5", "umt5", "longt5")
