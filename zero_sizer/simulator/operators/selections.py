"""Selections (``x[mask]``, ``nonzero``): how much they keep depends on values, often not there.

The most that they can keep, every element, is counted, and the recording says so.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor

from zero_sizer.simulator import values

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
    found = _mask(args)
    return _indexed(args[0], *found, found[1].numel()) if found is not None else None


def known_shape(func: Any, args: Sequence[Any]) -> tuple[int, ...] | None:
    """The shape of ``x[mask]`` where the mask's values are known; None of anything else."""
    found = _mask(args) if func is torch.ops.aten.index.Tensor else None
    value = values.of(found[1]) if found is not None and type(found[1]) is FakeTensor else None
    if found is None or value is None:
        return None
    return _indexed(args[0], *found, int(value.count_nonzero()))


def _mask(args: Sequence[Any]) -> tuple[int, Any] | None:
    """(first dimension that it goes over, the mask) where elements are selected by one alone."""
    given = [(place, index) for place, index in enumerate(args[1]) if index is not None]
    return given[0] if len(given) == 1 and given[0][1].dtype in _MASKS else None


def _indexed(source: Any, place: int, mask: Any, count: int) -> tuple[int, ...]:
    return (*source.shape[:place], count, *source.shape[place + mask.dim() :])
