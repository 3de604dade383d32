"""Selections (``x[mask]``, ``nonzero``): how much they keep depends on values, often not there.

The most that they can keep, every element, is counted, and the recording says so.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch

NOTE = (
    "a selection by a mask (x[mask], nonzero, where) is counted as if it kept every element: "
    "how many it keeps depends on values"
)
_MASKS = (torch.bool, torch.uint8)


def largest_shape(func: Any, args: Sequence[Any]) -> tuple[int, ...] | None:
    """The shape of the result where the mask keeps everything.

    Args:
        func: the operator.
        args: its arguments.

    Returns:
        The shape; None where the operator selects by something else than one mask.
    """
    if func is torch.ops.aten.nonzero.default:
        return (args[0].numel(), args[0].dim())
    if func is torch.ops.aten.masked_select.default:
        return (math.prod(torch.broadcast_shapes(args[0].shape, args[1].shape)),)
    if func is not torch.ops.aten.index.Tensor:
        return None
    source, indices = args
    given = [(place, index) for place, index in enumerate(indices) if index is not None]
    if len(given) != 1 or given[0][1].dtype not in _MASKS:
        return None
    place, mask = given[0]
    shape = source.shape
    return (*shape[:place], mask.numel(), *shape[place + mask.dim() :])
