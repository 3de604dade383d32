"""FlashAttention-2 as transformers calls it, on the simulated GPU.

Only the kernel is replaced; what transformers does around it (casts, layouts, no mask for windows)
runs as it is. Saved for backward are query, key, value, output and one fp32 per row of scores, as
by the package.
"""

import builtins
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from zero_sizer.simulator.undo import Patches

_HEAD_DIM_MULTIPLE = 8


@contextmanager
def installed() -> Iterator[None]:
    """transformers finds ``flash_attention_2``."""
    from transformers import PreTrainedModel, modeling_flash_attention_utils

    changed = Patches()
    changed.set(modeling_flash_attention_utils, "_lazy_imports", _lazy_imports)
    changed.set(modeling_flash_attention_utils, "_loaded_implementation", None)
    changed.set(PreTrainedModel, "_flash_attn_can_dispatch", _can_dispatch)
    forward = modeling_flash_attention_utils._flash_attention_forward
    # GPT-J, Falcon and their like import it only where the package is: as a builtin they find it
    changed.set(builtins, "_flash_attention_forward", forward)
    try:
        yield
    finally:
        changed.undo()


def _can_dispatch(model: Any, *args: Any, **kwargs: Any) -> bool:
    if not model._supports_flash_attn:
        raise ValueError(f"{type(model).__name__} does not support flash attention")
    return True


def _lazy_imports(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
    """The package's functions; of those around padding, transformers' own, which hold as much."""
    from transformers import modeling_flash_attention_utils as own

    return _flash, _flash_unpadded, None, own._pad_input, own._unpad_input


def _flash(  # noqa: PLR0913 (the package's signature)
    q: Any,
    k: Any,
    v: Any,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    deterministic: bool = False,
) -> Any:
    """``flash_attn_func``: q, k, v of (batch, sequence, heads, head dim)."""
    head_dim = q.shape[-1]
    scale = head_dim**-0.5 if softmax_scale is None else softmax_scale
    padded = [_pad(tensor).transpose(1, 2) for tensor in (q, k, v)]
    output = torch.ops.aten._scaled_dot_product_flash_attention(
        *padded, dropout_p, causal, False, scale=scale
    )[0]
    return output.transpose(1, 2)[..., :head_dim]


def _flash_unpadded(  # noqa: PLR0913 (the package's signature)
    q: Any,
    k: Any,
    v: Any,
    cu_seqlens_q: Any,
    cu_seqlens_k: Any,
    max_seqlen_q: Any,
    max_seqlen_k: Any,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    deterministic: bool = False,
) -> Any:
    """``flash_attn_varlen_func``: q, k, v of (tokens of all sequences, heads, head dim)."""
    head_dim = q.shape[-1]
    output = torch.ops.aten._flash_attention_forward(
        *(_pad(tensor) for tensor in (q, k, v)),
        *(cu_seqlens_q, cu_seqlens_k, int(max_seqlen_q), int(max_seqlen_k)),
        *(dropout_p, causal, False),
        scale=head_dim**-0.5 if softmax_scale is None else softmax_scale,
    )[0]
    return output[..., :head_dim]


def _pad(tensor: Any) -> Any:
    missing = -tensor.shape[-1] % _HEAD_DIM_MULTIPLE
    return torch.nn.functional.pad(tensor, (0, missing)) if missing else tensor
