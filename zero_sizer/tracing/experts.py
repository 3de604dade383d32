"""Grouped matrix products of experts: torch's fake kernel knows 16 bits only, and no FLOPs."""

from typing import Any

import torch

from zero_sizer.simulator.tracker import GPU

OPERATOR = torch.ops.aten._grouped_mm


def answer(mode: Any, func: Any, args: Any, kwargs: Any) -> Any:
    """The product, in any floating-point type."""
    left, right = args[:2]
    if left.dtype == torch.bfloat16:
        return mode.ask(func, (), args, kwargs)
    offsets = args[2] if len(args) > 2 else kwargs.get("offs")
    shape = _shape(left, right, offsets)
    stride = torch.empty(shape, device="meta").stride()
    return mode.make(shape, stride, left.dtype, left.device, GPU)


def _shape(left: Any, right: Any, offsets: Any) -> tuple[int, ...]:
    """Rows of ``left`` by columns of ``right``; a matrix a group where both are alike."""
    size = (left.shape[-2], right.shape[-1])
    if left.dim() == right.dim():
        groups = offsets.shape[0] if left.dim() == 2 else left.shape[0]
        return groups, *size
    return size


def flops(left: Any, right: Any, *args: Any, **kwargs: Any) -> int:
    """Every row meets one group's matrix, however many groups there are."""
    rows, inner = left.shape[-2:]
    return int(2 * rows * inner * right.shape[-1])
