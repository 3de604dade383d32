"""Weights in groups of 4 or 8 bits, as ``weight_quantization.quantized_initialization`` makes them.

Follows deepspeed 0.19.8: runtime/zero/partition_parameters.py:1245 (under ``zero.Init`` alone) and
inference/quantization/utils.py: codes, a scale and a least value of each group lie in one flat
parameter of the model's dtype. Only what is exactly ``nn.Linear`` or ``nn.Embedding`` is converted.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from zero_sizer.models.changes.records import GroupCodes
from zero_sizer.models.spec import ModelSpec, Tensor
from zero_sizer.units import DType

KEY = "weight_quantization.quantized_initialization"
_CONVERTED = ("Linear", "Embedding")
_STATISTICS = 2  # a scale and a least value
_NEEDED = ("num_bits", "group_size", "group_dim", "symmetric")


def read(values: Mapping[str, Any]) -> GroupCodes:
    """The section of a config.

    Raises:
        ValueError: DeepSpeed's error, in its words.
    """
    missing = next((name for name in _NEEDED if name not in values), None)
    if missing is not None:
        raise ValueError(f"KeyError: {missing!r}")
    bits, size, dimension = (values[name] for name in _NEEDED[:3])
    if bits not in (4, 8) or isinstance(bits, bool):
        raise ValueError("AssertionError: Only INT4 and INT8 quantization is supported.")
    if values["symmetric"] is not False:
        raise ValueError("AssertionError: Only asymmetric quantization is supported")
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ValueError(f"TypeError: group_size is {size!r}, no number of weights")
    if dimension not in (0, 1) or isinstance(dimension, bool):
        raise ValueError(f"IndexError: group_dim is {dimension!r}, neither 0 nor 1")
    return GroupCodes(bits=bits, size=size, dimension=dimension)


def with_group_codes(spec: ModelSpec, codes: GroupCodes, dtype: DType) -> ModelSpec:
    """The model as ``zero.Init`` makes it.

    Args:
        spec: neither packed nor adapted.
        codes: how.
        dtype: of the model.

    Raises:
        ValueError: DeepSpeed's error, in its words.
    """
    parameters = tuple([_stored(tensor, codes, dtype) for tensor in spec.parameters])
    return replace(spec, parameters=parameters, base=spec, codes=codes)


def _stored(tensor: Tensor, codes: GroupCodes, dtype: DType) -> Tensor:
    if tensor.module_type not in _CONVERTED or not tensor.name.endswith(".weight"):
        return tensor
    if tensor.shape[codes.dimension] % codes.size:
        shape = list(tensor.shape)
        raise ValueError(f"AssertionError: Tensor shape: {shape} of {tensor.name}")
    packed = tensor.shape[-1] * codes.bits
    if packed % 8 or packed // 8 % dtype.itemsize:
        raise ValueError(f"RuntimeError: rows of {tensor.name} are no whole {dtype.value} numbers")
    numel = stored_numel(tensor.numel, codes, dtype.itemsize)
    return Tensor(tensor.name, (numel,), dtype, False, "QuantizedWeight", unpacked=tensor.shape)


def stored_numel(numel: int, codes: GroupCodes, itemsize: int) -> int:
    """Elements of the flat parameter that a weight of ``numel`` becomes."""
    return numel * codes.bits // 8 // itemsize + _STATISTICS * numel // codes.size


def while_made(numel: int, codes: GroupCodes, itemsize: int) -> int:
    """Bytes beside a whole weight of ``numel`` while its codes are made: its copy, and codes.

    Each group has its least, its largest and its scale. Of 4 bits there are the codes in 8, then
    pairs shifted, put together, and room that is never used.
    """
    statistic = numel // codes.size * itemsize
    codes_of_8 = numel + 3 * statistic
    codes_of_4 = numel + 3 * (numel // 2) + 2 * statistic
    return numel * itemsize + (codes_of_8 if codes.bits == 8 else max(codes_of_8, codes_of_4))
