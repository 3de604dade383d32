"""Attention kernels that the simulated GPU has: torch's own choice on a recent NVIDIA GPU.

On CPU builds ``scaled_dot_product_attention`` would fall apart into matrix products and keep
every score; a GPU runs a fused kernel. The function is replaced rather than a mode entered, since
gradient checkpointing recomputes in the backward thread, where modes of Python are not seen.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional

from zero_sizer.simulator import device
from zero_sizer.simulator.undo import Patches

_HALF = (torch.float16, torch.bfloat16)
_FLASH_MAX_HEAD_DIM = 256  # torch's flash kernel (aten/native/transformers/cuda/sdp_utils.cpp)
_FLASH_HEAD_DIM_MULTIPLE = 8


@contextmanager
def fused_attention() -> Iterator[None]:
    """``scaled_dot_product_attention`` on the simulated GPU runs as a fused kernel."""
    patches = Patches()
    original = functional.scaled_dot_product_attention

    def attention(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
        if not device.holds(query):
            return original(query, key, value, *args, **kwargs)
        return _fused(query, key, value, *args, **kwargs)

    patches.set(functional, "scaled_dot_product_attention", attention)
    _skip_masks(patches)
    try:
        yield
    finally:
        patches.undo()


def _skip_masks(patches: Patches) -> None:
    """transformers keeps masks that it does not need where it meets fake tensors; not on a GPU."""
    try:
        from transformers import masking_utils
    except ImportError:  # a factory's model needs none of it
        return
    patches.set(masking_utils, "is_tracing", lambda tensor=None: False)


def _fused(  # noqa: PLR0913 (torch's signature)
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """The kernel torch picks: flash for 16-bit without a mask, else the memory-efficient one."""
    query, key, value = _cast_for_autocast(query, key, value)
    head_dim = query.shape[-1]
    if attn_mask is None and _flash_takes(query, value):
        scale = head_dim**-0.5 if scale is None else scale
        padded = [_pad(tensor) for tensor in (query, key, value)]
        output = torch.ops.aten._scaled_dot_product_flash_attention(
            *padded, dropout_p, is_causal, False, scale=scale
        )[0]
        return output[..., :head_dim] if output.shape[-1] != head_dim else output
    if enable_gqa:
        repeats = query.shape[-3] // key.shape[-3]
        key, value = (tensor.repeat_interleave(repeats, -3) for tensor in (key, value))
    if attn_mask is not None:
        attn_mask = _bias(attn_mask, query, key)
    return torch.ops.aten._scaled_dot_product_efficient_attention(
        query, key, value, attn_mask, torch.is_grad_enabled(), dropout_p, is_causal, scale=scale
    )[0]


def _flash_takes(query: Any, value: Any) -> bool:
    """Whether the flash kernel knows this type and size (sdp_utils.cpp)."""
    head_dim = query.shape[-1]
    same = bool(value.shape[-1] == head_dim)  # not so in multi-head latent attention
    return same and query.dtype in _HALF and head_dim <= _FLASH_MAX_HEAD_DIM


def _cast_for_autocast(*tensors: Any) -> tuple[Any, ...]:
    """Autocast lists ``scaled_dot_product_attention`` among the 16-bit operators."""
    if not torch.is_autocast_enabled(device.NAME):
        return tensors
    dtype = torch.get_autocast_dtype(device.NAME)
    return tuple(t.to(dtype) if t.dtype == torch.float32 else t for t in tensors)


def _pad(tensor: Any) -> Any:
    missing = -tensor.shape[-1] % _FLASH_HEAD_DIM_MULTIPLE
    return functional.pad(tensor, (0, missing)) if missing else tensor


def _bias(mask: Any, query: Any, key: Any) -> Any:
    """A boolean mask becomes an additive bias, which the kernel sees expanded, not copied."""
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill_(mask.logical_not(), 0.0)
    return mask.expand(*query.shape[:-1], key.shape[-2])
