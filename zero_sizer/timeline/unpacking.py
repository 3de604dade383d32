"""Bytes that a product with packed weights takes beside its result."""

from functools import lru_cache
from math import prod

from zero_sizer.models.changes.records import AWQ, FP8, GPTQ, Quantization
from zero_sizer.models.spec import ModelSpec, Tensor
from zero_sizer.units import DType, ceil_div, num_bytes
from zero_sizer.util.identity import Identity

_BLOCK = 64  # weights that share a maximum
_FP8_BLOCK = 128  # inputs that share a scale


def unpacked_bytes(spec: ModelSpec, linear: str, rows: int, dtype: DType) -> int:
    """Bytes beyond those of the same product with whole weights; 0 where it is not packed.

    Args:
        spec: the quantized model.
        linear: a layer's name without its block.
        rows: of the input.
        dtype: of the model.
    """
    found = _packed(Identity(spec)).get(linear)
    how = spec.quantization
    if found is None or how is None:
        return 0
    width_out, width_in = _widths(found)
    if how.method == FP8:  # the input's codes, and a scale for each 128
        return rows * width_in + num_bytes(rows * ceil_div(width_in, _FP8_BLOCK), DType.FP32)
    if how.method in (GPTQ, AWQ):
        return 0  # inside of kernels: bounded by ``whole_weight``
    if how.bits == 8:
        return _of_int8(rows, width_in, width_out, dtype)
    return _of_4_bits(how, rows, width_in, width_out, dtype)


def whole_weight(spec: ModelSpec) -> int:
    """Bytes of the largest packed weight in 16 bits: what a kernel may unpack at most."""
    packed = _packed(Identity(spec)).values()
    return max((num_bytes(prod(t.matrix), DType.FP16) for t in packed), default=0)


def _of_4_bits(how: Quantization, rows: int, width_in: int, width_out: int, dtype: DType) -> int:
    """Inputs cast to the dtype of the product, the weight unpacked before there is a result.

    A single row is multiplied with the codes themselves (``matmul_4bit``).
    """
    numel, result = width_in * width_out, num_bytes(rows * width_out, dtype)
    absmax = num_bytes(ceil_div(numel, _BLOCK), DType.FP32) if how.double else 0
    is_cast = how.compute is not dtype
    inputs = num_bytes(rows * width_in, how.compute) if is_cast else 0
    own = num_bytes(rows * width_out, how.compute) if is_cast else 0  # before it is cast back
    if rows == 1 and width_in % _BLOCK == 0:
        return inputs + max(absmax + own - result * is_cast, own)
    whole, weight = num_bytes(numel, dtype), num_bytes(numel, how.compute)
    unpacking = whole + max(absmax, weight if is_cast else 0) - result
    return inputs + max(unpacking, weight + (own - result if is_cast else 0), own)


def _of_int8(rows: int, width_in: int, width_out: int, dtype: DType) -> int:
    """Inputs in fp16, their codes, and sums in 32 bits before the result (MatMul8bitLt)."""
    result = num_bytes(rows * width_out, dtype)
    half = 0 if dtype is DType.FP16 else num_bytes(rows * width_in, DType.FP16)
    scales = num_bytes(rows, DType.FP32)
    codes = rows * width_in
    outliers = num_bytes(rows * width_in, DType.FP16) + rows * width_in  # magnitudes, then a mask
    quantizing = half + codes + scales + outliers
    sums = num_bytes(rows * width_out, DType.INT32) + num_bytes(rows * width_out, DType.FP16)
    return max(quantizing, codes + scales + sums) - result


def _widths(tensor: Tensor) -> tuple[int, int]:
    first, second = tensor.matrix[-2:]
    return (second, first) if tensor.module_type.startswith("Conv1D") else (first, second)


@lru_cache(maxsize=32)
def _packed(identity: Identity) -> dict[str, Tensor]:
    """Name without the block -> one such weight."""
    spec: ModelSpec = identity.of
    return {relative(t.module): t for t in spec.parameters if t.unpacked is not None}


def relative(name: str) -> str:
    """A module's name without its block."""
    parts = name.split(".")
    numbered = [i for i, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[numbered[0] + 1 :]) if numbered else name
