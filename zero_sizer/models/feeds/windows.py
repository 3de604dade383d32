"""Windows that a tower looks at an image through."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from zero_sizer.models.feeds.fields import nested, whole


def lengths(
    fields: Mapping[str, Any], sides: Sequence[int], patch: int, merge: int
) -> tuple[int, ...]:
    """Patches of each window of one image; empty where the tower sees it whole.

    All blocks of Qwen2.5-VL's tower but a few have windows, which sdpa and eager attention visit
    one by one. Those at the far sides are cut (transformers 5.23 vision_utils.py,
    ``get_vision_window_index``).

    Args:
        fields: of the model's config.
        sides: of the image, in merged patches.
        patch: pixels of a patch's side.
        merge: patches of a merged one's side.
    """
    if fields.get("model_type") != "qwen2_5_vl":
        return ()
    window = whole(nested(fields, "vision_config"), "window_size", default=112)
    step = max(window // merge // patch, 1)
    cut = [[min(step, side - at) for at in range(0, side, step)] for side in sides]
    return tuple(rows * columns * merge**2 for rows, columns in product(*cut))


def measures(found: Sequence[int]) -> dict[str, int]:
    """How many windows, patches of the largest, and the squares of their patches added up."""
    if not found:
        return {}
    return {
        "windows": len(found),
        "window": max(found),
        "window_squares": sum(length**2 for length in found),
    }
