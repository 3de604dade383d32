"""Sizes of images on their way to a model: what a trainer makes of them, then the processor."""

from collections.abc import Mapping
from dataclasses import replace
from math import ceil, floor, isqrt, sqrt
from typing import Any, NamedTuple, Self

from zero_sizer.models.feeds.records import TRAINER, Images, Said

QWEN = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe")
"""Kinds whose images keep their size, rounded to whole merged patches."""
_SIDE = 1024  # pixels; a photograph within the usual limits of Qwen's and Pixtral's processors
USUAL_PIXELS = _SIDE**2
"""Of an image whose size is left to the data."""
_OLDER, _NEWER = (3136, 12_845_056), (65_536, 16_777_216)
OF_PROCESSOR = {**dict.fromkeys(QWEN[:2], _OLDER), **dict.fromkeys(QWEN[2:], _NEWER)}
"""Fewest and most pixels of an image, ``min_pixels`` and ``max_pixels`` (or ``size``'s
``shortest_edge`` and ``longest_edge``, which mean pixels) of preprocessor_config.json beside the
weights (Qwen2-VL-7B-Instruct, Qwen2.5-VL-7B-Instruct; Qwen3-VL-8B-Instruct, Qwen3-VL-30B-A3B-
Instruct, Qwen3.5-2B-Base)."""
_LEAST_SIDE, _RATIO = 28, 180  # LLaMA-Factory's, see below
LONGEST_RATIO = 200
"""Of an image's sides, above which Qwen's processors and qwen_vl_utils raise ValueError."""


class Bounds(NamedTuple):
    """Pixels that an image may have.

    Attributes:
        most: None where nobody states them: the processor's.
        least: likewise.
        by_trainer: the trainer scales by them, before the processor; else the processor does.
    """

    most: int | None = None
    least: int | None = None
    by_trainer: bool = False

    @classmethod
    def of(cls, said: Said) -> Self:
        """Bounds that a user states."""
        return cls(said.max_pixels, said.min_pixels, said.scaled_by == TRAINER)


def side_of(most: int | None) -> int:
    """Pixels of the side of a square image whose size is left to the data, within the bound."""
    return min(_SIDE, isqrt(most)) if most else _SIDE


def before_the_processor(images: Images, kind: str | None, bounds: Bounds) -> Images:
    """Images as a trainer hands them on; unchanged where it scales none or no size is stated."""
    if not bounds.by_trainer or images.height is None:
        return images
    height, width = scaled(images.height, images.width or images.height, bounds)
    if kind in QWEN:
        height, width = _as_qwen_takes(height, width)
    return replace(images, height=height, width=width)


def scaled(height: int, width: int, bounds: Bounds) -> tuple[int, int]:
    """Sides between both bounds, cut to whole pixels.

    hiyouga/LLaMA-Factory at ff6d4d1, src/llamafactory/data/mm_plugin.py:218.
    """
    if bounds.most is not None and height * width > bounds.most:
        height, width = _times(height, width, sqrt(bounds.most / (width * height)))
    if bounds.least is not None and height * width < bounds.least:
        height, width = _times(height, width, sqrt(bounds.least / (width * height)))
    return height, width


def _times(height: int, width: int, factor: float) -> tuple[int, int]:
    return int(height * factor) or 1, int(width * factor) or 1  # Pillow makes none of no pixels


def _as_qwen_takes(height: int, width: int) -> tuple[int, int]:
    """No side below a patch of the oldest and no strips: LLaMA-Factory, mm_plugin.py:2261."""
    height, width = max(height, _LEAST_SIDE), max(width, _LEAST_SIDE)
    if width / height > LONGEST_RATIO:
        width = height * _RATIO
    if height / width > LONGEST_RATIO:
        height = width * _RATIO
    return height, width


def is_too_long(images: Images, kind: str | None, bounds: Bounds) -> bool:
    """True if a processor refuses images of a stated size, as Qwen's do strips."""
    if kind not in QWEN or images.height is None:
        return False
    handed_on = before_the_processor(images, kind, bounds)
    height = handed_on.height or images.height
    width = handed_on.width or height
    return max(height, width) / min(height, width) > LONGEST_RATIO


def sides_of_qwen(
    fields: Mapping[str, Any], images: Images, step: int, bounds: Bounds
) -> tuple[int, int]:
    """Height and width of an image in Qwen's tower, in pixels.

    Args:
        fields: of the model's config.json.
        images: after ``before_the_processor``.
        step: pixels of a merged patch's side.
        bounds: of images.

    Returns:
        The largest image that the bound allows where nobody states a size, at most twice as wide
        as high; a photograph where the bound is higher.
    """
    most, is_free = bounds.most, images.height is None
    if is_free and most is not None and most <= USUAL_PIXELS:
        found = _largest_rounded(step, most) if bounds.by_trainer else _largest(step, most)
    else:
        height = images.height or _SIDE
        found = (height, images.width or height)
    fewest, largest = OF_PROCESSOR[str(fields.get("model_type"))]
    if bounds.by_trainer:
        return smart_resize(*found, step, largest, fewest)
    most = largest if most is None else most
    fewest = min(fewest, most) if is_free else fewest  # a photograph is above either
    return smart_resize(*found, step, most, fewest if bounds.least is None else bounds.least)


def smart_resize(height: int, width: int, step: int, most: int, least: int) -> tuple[int, int]:
    """Sides as Qwen's processors make them: whole steps, with pixels between the bounds.

    transformers 5.23 image_processing_qwen2_vl.py:63, but for the longest shapes, which it
    refuses (``is_too_long``).
    """
    rounded = (round(height / step) * step or step, round(width / step) * step or step)
    if rounded[0] * rounded[1] > most:
        beta = sqrt(height * width / most)
        return (
            max(floor(height / beta / step), 1) * step,
            max(floor(width / beta / step), 1) * step,
        )
    if rounded[0] * rounded[1] < least:
        beta = sqrt(least / (height * width))
        return ceil(height * beta / step) * step, ceil(width * beta / step) * step
    return rounded


def _largest(step: int, most: int) -> tuple[int, int]:
    """Sides of the image with the most patches within the bound, at most twice as wide as high."""
    steps = max(most // step**2, 1)
    least = isqrt(max(steps // 2 - 1, 0)) + 1
    rows = max(range(isqrt(steps), least - 1, -1), key=lambda n: steps // n * n)
    return rows * step, steps // rows * step


def _largest_rounded(step: int, most: int) -> tuple[int, int]:
    """As ``_largest``, of images within the bound whose sides are rounded after it."""
    found = (1, 1)
    for rows in range(1, isqrt(most) // step + 2):
        height = _least_side(rows, step)
        columns = min(round(most // height / step), 2 * rows)
        if columns >= rows and rows * columns > found[0] * found[1]:
            found = (rows, columns)
    return found[0] * step, found[1] * step


def _least_side(steps: int, step: int) -> int:
    """Pixels from which on a side is rounded to so many steps."""
    side = (2 * steps - 1) * step // 2
    return next(of for of in (side, side + 1, side + 2) if round(of / step) == steps)
