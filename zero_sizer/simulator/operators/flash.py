"""FlashAttention as transformers calls it, the package or a kernel of the hub, simulated.

Only the kernel is replaced; what transformers does around it (casts, layouts, no mask for windows)
runs as it is. Saved for backward are query, key, value, output and one fp32 per row of scores, as
by the package.
"""

import builtins
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from zero_sizer.simulator.undo import Patches

_HEAD_DIM_MULTIPLE = 8


@contextmanager
def installed() -> Iterator[None]:
    """transformers finds ``flash_attention_2``, and the hub's kernels that stand in for it."""
    from transformers import (
        AttentionInterface,
        PreTrainedModel,
        masking_utils,
        modeling_flash_attention_utils,
    )

    changed = Patches()
    changed.set(modeling_flash_attention_utils, "_lazy_imports", _lazy_imports)
    changed.set(modeling_flash_attention_utils, "_loaded_implementation", None)
    changed.set(PreTrainedModel, "_flash_attn_can_dispatch", _can_dispatch)
    for interface in (AttentionInterface, masking_utils.AttentionMaskInterface):
        changed.set(interface, "_global_mapping", _with_kernels(interface._global_mapping))
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


def _with_kernels(known: Mapping[str, Any]) -> dict[str, Any]:
    """Kernels of the hub by their names beside the package's; gpt-oss takes no other flash."""
    from transformers.modeling_flash_attention_utils import FLASH_ATTN_KERNEL_DEVICES

    return {**dict.fromkeys(FLASH_ATTN_KERNEL_DEVICES, known["flash_attention_2"]), **known}


class _Sinks(torch.autograd.Function):  # type: ignore[misc]  # torch is not followed by mypy
    """Sinks have a gradient; the kernel keeps for it nothing that it does not keep anyway."""

    @staticmethod
    def forward(ctx: Any, output: Any, sinks: Any) -> Any:
        """``output`` as it is."""
        ctx.like = (sinks.shape, sinks.dtype, sinks.device)
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """The output's gradient, and one of the sinks' size."""
        shape, dtype, device = ctx.like
        return gradients[0], torch.empty(shape, dtype=dtype, device=device)


def _with_sinks(output: Any, sinks: Any) -> Any:
    return output if sinks is None else _Sinks.apply(output, sinks)


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
    s_aux: Any = None,
) -> Any:
    """``flash_attn_func``: q, k, v of (batch, sequence, heads, head dim)."""
    head_dim = q.shape[-1]
    scale = head_dim**-0.5 if softmax_scale is None else softmax_scale
    padded = [_pad(tensor).transpose(1, 2) for tensor in (q, k, v)]
    output = torch.ops.aten._scaled_dot_product_flash_attention(
        *padded, dropout_p, causal, False, scale=scale
    )[0]
    return _with_sinks(output.transpose(1, 2)[..., :head_dim], s_aux)


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
    s_aux: Any = None,
) -> Any:
    """``flash_attn_varlen_func``: q, k, v of (tokens of all sequences, heads, head dim)."""
    head_dim = q.shape[-1]
    output = torch.ops.aten._flash_attention_forward(
        *(_pad(tensor) for tensor in (q, k, v)),
        *(cu_seqlens_q, cu_seqlens_k, int(max_seqlen_q), int(max_seqlen_k)),
        *(dropout_p, causal, False),
        scale=head_dim**-0.5 if softmax_scale is None else softmax_scale,
    )[0]
    return _with_sinks(output[..., :head_dim], s_aux)


def _pad(tensor: Any) -> Any:
    missing = -tensor.shape[-1] % _HEAD_DIM_MULTIPLE
    return torch.nn.functional.pad(tensor, (0, missing)) if missing else tensor
