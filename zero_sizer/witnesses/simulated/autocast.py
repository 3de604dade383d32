"""torch.autocast on the simulated GPU: the casts that torch makes on a CUDA device.

torch knows autocast only for its own devices; without these registrations an operator under
``torch.autocast("simgpu")`` has no kernel. The lists are those of ATen/autocast_mode.h
(torch 2.13); a test reads them from the installed header.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from zero_sizer.witnesses.simulated import device
from zero_sizer.witnesses.simulated.patches import Patches

LOWER_PRECISION = (
    "_convolution.deprecated _convolution conv1d conv2d conv3d conv_tbc conv_transpose1d "
    "conv_transpose2d.input conv_transpose3d.input convolution prelu addmm addmv addr matmul "
    "einsum mm mv linalg_vecdot linear addbmm baddbmm bmm chain_matmul linalg_multi_dot "
    "_thnn_fused_lstm_cell _thnn_fused_gru_cell lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell "
    "_scaled_dot_product_flash_attention scaled_dot_product_attention"
).split()
FP32 = (
    "acos asin cosh erfinv exp expm1 log log10 log2 log1p reciprocal rsqrt sinh tan "
    "pow.Tensor_Scalar pow.Tensor_Tensor pow.Scalar softplus layer_norm native_layer_norm rms_norm "
    "group_norm frobenius_norm.dim nuclear_norm nuclear_norm.dim cosine_similarity "
    "poisson_nll_loss cosine_embedding_loss nll_loss nll_loss2d hinge_embedding_loss kl_div "
    "l1_loss smooth_l1_loss huber_loss mse_loss margin_ranking_loss multilabel_margin_loss "
    "soft_margin_loss triplet_margin_loss multi_margin_loss binary_cross_entropy_with_logits dist "
    "pdist cdist renorm logsumexp upsample_nearest1d _upsample_nearest_exact1d upsample_nearest2d "
    "_upsample_nearest_exact2d upsample_nearest3d _upsample_nearest_exact3d upsample_linear1d "
    "upsample_bilinear2d _upsample_bilinear2d_aa upsample_trilinear3d upsample_bicubic2d "
    "_upsample_bicubic2d_aa"
).split()
FP32_SET_OPT_DTYPE = (
    "prod prod.dim_int softmax.int log_softmax.int cumprod cumsum linalg_vector_norm "
    "linalg_matrix_norm linalg_matrix_norm.str_ord sum sum.dim_IntList"
).split()
PROMOTE = (
    "addcdiv addcmul atan2 bilinear cross dot vdot grid_sampler index_put tensordot scatter_add"
).split()

_KEY = "AutocastPrivateUse1"
_16_BIT = (torch.float16, torch.bfloat16)


class _Casts:
    """Casts of weights, kept until the outermost autocast region ends, as torch keeps them."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[Any, Any]] = {}

    def clear(self) -> None:
        self._kept.clear()

    def to(self, tensor: Any, dtype: torch.dtype) -> Any:
        if not _is_eligible(tensor) or tensor.dtype == dtype:
            return tensor
        keep = (
            torch.is_autocast_cache_enabled()
            and dtype in _16_BIT
            and tensor.dtype == torch.float32
            and tensor.requires_grad
            and tensor.is_leaf
            and tensor._base is None
        )
        if not keep:
            return tensor.to(dtype)
        if id(tensor) not in self._kept:
            self._kept[id(tensor)] = (tensor, tensor.to(dtype))
        return self._kept[id(tensor)][1]


def _is_eligible(value: Any) -> bool:
    return (
        isinstance(value, torch.Tensor)
        and value.is_floating_point()
        and value.dtype != torch.float64
        and value.device.type == device.NAME
    )


def _map(cast: Callable[[Any], Any], value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return cast(value)
    if isinstance(value, list | tuple):
        return type(value)(_map(cast, item) for item in value)
    return value


def _lower(casts: _Casts, args: Any, kwargs: Any) -> tuple[Any, Any]:
    dtype = torch.get_autocast_dtype(device.NAME)
    return _map(lambda t: casts.to(t, dtype), args), {
        name: _map(lambda t: casts.to(t, dtype), value) for name, value in kwargs.items()
    }


def _raise(casts: _Casts, args: Any, kwargs: Any) -> tuple[Any, Any]:
    return _map(lambda t: casts.to(t, torch.float32), args), kwargs


def _set_dtype(casts: _Casts, args: Any, kwargs: Any) -> tuple[Any, Any]:
    if kwargs.get("dtype") is None and _is_eligible(args[0]) and args[0].dtype in _16_BIT:
        kwargs = {**kwargs, "dtype": torch.float32}
    return args, kwargs


def _promote(casts: _Casts, args: Any, kwargs: Any) -> tuple[Any, Any]:
    widest = torch.get_autocast_dtype(device.NAME)
    for value in args:
        if _is_eligible(value) and value.dtype == torch.float32:
            widest = torch.float32
    return _map(lambda t: casts.to(t, widest), args), kwargs


@contextmanager
def registered() -> Iterator[None]:
    """Autocast kernels for the simulated GPU, removed on exit."""
    casts, patches = _Casts(), Patches()
    everything = torch.library.Library("_", "IMPL", _KEY)
    everything.fallback(torch.library.fallthrough_kernel, _KEY)
    aten = torch.library.Library("aten", "IMPL", _KEY)
    for names, rule in (
        (LOWER_PRECISION, _lower),
        (FP32, _raise),
        (FP32_SET_OPT_DTYPE, _set_dtype),
        (PROMOTE, _promote),
    ):
        for name in names:
            _register(aten, name, rule, casts)
    clear = torch.clear_autocast_cache

    def clear_both() -> None:
        casts.clear()
        clear()

    patches.set(torch, "clear_autocast_cache", clear_both)
    try:
        yield
    finally:
        patches.undo()
        aten._destroy()
        everything._destroy()


def _register(library: Any, name: str, rule: Callable[..., Any], casts: _Casts) -> None:
    packet_name, _, overload = name.partition(".")
    packet = getattr(torch.ops.aten, packet_name, None)
    if packet is None or (overload or "default") not in packet.overloads():
        return
    operator = getattr(packet, overload or "default")

    def kernel(*args: Any, **kwargs: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(_KEY_ENUM)):
            args, kwargs = rule(casts, args, kwargs)
            return operator(*args, **kwargs)

    library.impl(name, kernel)


_KEY_ENUM = getattr(torch._C.DispatchKey, _KEY)
