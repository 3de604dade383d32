"""Layers that hold and allocate what bitsandbytes' do, for devices on which its kernels cannot run.

Nothing is computed. The order of allocations follows bitsandbytes 0.50.2: autograd/_functions.py
(``MatMul4Bit``, ``MatMul8bitLt`` without outliers), functional.py:992 (``dequantize_4bit``) and
backends/cuda/ops.py (:934, the path for more than 1,536 rows: weights unpacked, then a product).
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from zero_sizer.models.changes.quantization import packed, statistics
from zero_sizer.models.changes.records import Quantization
from zero_sizer.models.spec import Tensor
from zero_sizer.units import DType


def quantize(
    model: Any, how: Mapping[str, Any], names: Iterable[str], *, infers: bool = False
) -> Any:
    """Replaces the linear layers ``names`` of ``model`` by quantized ones.

    Args:
        model: a base model, on any device.
        how: ``Quantization.to_json``.
        names: of the layers.
        infers: nothing is trained: no adapter takes copies, and one row meets the codes themselves.
    """
    quantization = Quantization(
        bits=how["bits"],
        double=how["double"],
        storage=DType(how["storage"]),
        compute=DType(how["compute"]),
    )
    layers = dict(model.named_modules())
    for name in names:
        made = _Quantized(layers[name], quantization)
        made.infers = infers
        model.set_submodule(name, made)
    return model


def quantized(model: Any) -> Iterator[Any]:
    """Layers of ``model`` that ``quantize`` made."""
    return (module for module in model.modules() if isinstance(module, _Quantized))


class _Quantized(torch.nn.Linear):  # type: ignore[misc]  # mypy does not follow torch
    """A linear layer (peft must see one) of packed weights."""

    def __init__(self, layer: Any, quantization: Quantization) -> None:
        torch.nn.Module.__init__(self)
        weight, where = layer.weight, layer.weight.device
        kind = type(layer).__name__
        tensor = Tensor("layer.weight", tuple(weight.shape), module_type=kind)
        shape = tuple(weight.shape)
        self.out_features, self.in_features = shape[::-1] if kind == "Conv1D" else shape
        self.unpacked_dtype = weight.dtype
        self.compute_dtype = getattr(torch, quantization.compute.value)
        self.bits = quantization.bits
        stored = packed(tensor, quantization)
        dtype = getattr(torch, (stored.dtype or DType.UINT8).value)
        data = torch.empty(stored.shape, dtype=dtype, device=where)
        self.weight = torch.nn.Parameter(data, requires_grad=False)
        self.bias = layer.bias
        for row in statistics(tensor, quantization):
            made = torch.empty(row.shape, dtype=getattr(torch, row.dtype.value), device=where)  # type: ignore[union-attr]  # statistics have dtypes
            self.register_buffer(row.name.rpartition(".")[2], made, persistent=False)

    def unpacked(self) -> Any:
        """4-bit weights as a product takes them, and for a moment their statistics in fp32."""
        absmax = self.absmax.to(torch.float32, copy=True) if hasattr(self, "offset") else None
        shape = (self.out_features, self.in_features)
        found = self.weight.new_empty(shape, dtype=self.unpacked_dtype)
        del absmax
        return found

    def _of_one_row(self, inputs: Any, bias: Any) -> Any:
        """``gemv_4bit``, which unpacks no weight, only its statistics."""
        absmax = self.absmax.to(torch.float32, copy=True) if hasattr(self, "offset") else None
        found = inputs.new_empty((*inputs.shape[:-1], self.out_features))
        del absmax
        return found if bias is None else found.add_(bias)

    def forward(self, inputs: Any) -> Any:
        """A product that unpacks the weights, forward and backward."""
        if self.bits == 8:
            return _Product8.apply(inputs, self.weight, self.bias, self)
        wanted = inputs.to(self.compute_dtype)
        bias = None if self.bias is None else self.bias.to(self.compute_dtype)
        if self.infers and wanted.numel() == wanted.shape[-1] and self.in_features % 64 == 0:
            return self._of_one_row(wanted, bias).to(inputs.dtype)
        found = _Product4.apply(wanted, self.weight, bias, self).to(inputs.dtype)
        return found if self.infers else found.clone()  # peft takes a copy (tuners/lora/bnb.py)


class _Product4(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, inputs: Any, weight: Any, bias: Any, layer: _Quantized) -> Any:
        ctx.layer, ctx.dtype = layer, inputs.dtype
        ctx.codes = weight.view(-1, 1)  # beside autograd: what is gathered stays until backward
        return _linear(inputs, layer.unpacked().to(inputs.dtype), bias)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> tuple[Any, None, None, None]:
        ctx.codes = None
        return gradient.matmul(ctx.layer.unpacked().to(gradient.dtype)), None, None, None


class _Product8(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, inputs: Any, weight: Any, bias: Any, layer: _Quantized) -> Any:
        ctx.layer, ctx.inputs = layer, inputs
        rows = inputs.reshape(-1, inputs.shape[-1])
        half = rows.to(torch.float16)
        codes, scales = half.to(torch.int8), rows.new_empty(rows.shape[0], dtype=torch.float32)
        outliers = half.abs() >= 1.0
        del outliers, half
        shape = (rows.shape[0], layer.out_features)
        sums = rows.new_empty(shape, dtype=torch.int32)
        found = sums.to(torch.float16)
        del sums, codes, scales
        return found.to(inputs.dtype).reshape(*inputs.shape[:-1], layer.out_features)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> tuple[Any, None, None, None]:
        rows = gradient.reshape(-1, gradient.shape[-1]).contiguous()
        weight = ctx.layer.weight.to(ctx.inputs.dtype, copy=True)  # not in the dtype it had once
        found = rows.to(ctx.inputs.dtype).matmul(weight).view(ctx.inputs.shape)
        return found, None, None, None


def _linear(inputs: Any, weight: Any, bias: Any) -> Any:
    """The product itself; torch's own, whatever stands in its place."""
    found = inputs.matmul(weight.t())
    return found if bias is None else found.add_(bias)
