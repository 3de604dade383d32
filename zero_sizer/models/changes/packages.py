"""Weights as GPTQ, AWQ and fine-grained fp8 keep them, for inference.

Layouts of the checkpoints that transformers 5.23 loads: GPTQ's ``qweight``, ``qzeros``, ``scales``
and ``g_idx`` (gptqmodel, nn_modules/qlinear/torch.py), AWQ's without the last (AutoAWQ,
modules/linear/gemm.py), and fp8's codes with one scale a block (integrations/finegrained_fp8.py).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from zero_sizer.errors import InputError
from zero_sizer.models.changes.records import AWQ, FP8, GPTQ, Quantization
from zero_sizer.models.spec import ModelSpec, Tensor
from zero_sizer.units import DType, ceil_div
from zero_sizer.util.spelling import shown

METHODS = (GPTQ, AWQ, FP8)
_BITS = {GPTQ: (2, 3, 4, 8), AWQ: (4,), FP8: (8,)}
_WORD = 32  # bits of the integers that codes are packed into
_GROUP, _FP8_BLOCK = 128, 128
_MOST_GROUPED = 1_000_000


def read(method: str, words: Sequence[str], where: str) -> Quantization:
    """``gptq,bits=4,group=128`` as a flag or job file says it; group=-1 is all of a column.

    Raises:
        InputError: something else.
    """
    found: dict[str, int] = {}
    for word in words:
        key, _, value = word.partition("=")
        is_number = value.removeprefix("-").isdecimal() and len(value) < 10
        number = int(value) if is_number else 0
        if key not in ("bits", "group") or not is_number or key in found:
            raise InputError(
                f"{shown(word)} says nothing about {method}",
                remedy="write bits=4 or group=128, each once",
                where=where,
            )
        found[key] = number
    return _of(method, found.get("bits"), found.get("group"), None, where)


def from_fields(fields: Mapping[str, Any], where: str) -> Quantization:
    """The quantization of a config.json's ``quantization_config``.

    Raises:
        InputError: a value is wrong.
    """
    method = str(fields["quant_method"])
    bits, group = fields.get("bits"), fields.get("group_size", fields.get("q_group_size"))
    if method == FP8:
        block = fields.get("weight_block_size")
        bits, group = None, block[0] if isinstance(block, list) and block else None
    for name, value in (("bits", bits), ("group_size", group)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise InputError(f"{name} is {shown(value)}, not a whole number", where=where)
    skipped = fields.get("modules_to_not_convert")
    is_list = isinstance(skipped, list) and all(isinstance(name, str) for name in skipped)
    return _of(method, bits, group, tuple(skipped) if is_list and skipped else None, where)


def _of(
    method: str, bits: int | None, group: int | None, skipped: tuple[str, ...] | None, where: str
) -> Quantization:
    usual = 8 if method == FP8 else 4
    bits = usual if bits is None else bits
    if bits not in _BITS[method]:
        known = ", ".join(map(str, _BITS[method]))
        raise InputError(f"{method} has no {bits} bits", remedy=f"it has {known}", where=where)
    if group is None:
        group = _FP8_BLOCK if method == FP8 else _GROUP
    if group != -1 and not 0 < group <= _MOST_GROUPED:
        raise InputError(f"a group of {group} weights", remedy="write group=128", where=where)
    compute = DType.BF16 if method == FP8 else DType.FP16
    return Quantization(
        method=method,
        group=max(group, 0),
        bits=bits,
        compute=compute,
        skipped=skipped,
        origin=where,
    )


def skipped(spec: ModelSpec, quantization: Quantization) -> tuple[str, ...]:
    """Patterns of modules that stay as they are: whatever is outside of blocks."""
    if quantization.skipped is not None:
        return quantization.skipped
    outside = dict.fromkeys(
        tensor.module
        for tensor in spec.parameters
        if not any(part.isdigit() for part in tensor.name.split("."))
    )
    return (*outside, "lm_head")


def packed(tensor: Tensor, quantization: Quantization) -> Tensor:
    """The weight as it is stored."""
    rows, columns = _in_and_out(tensor)
    if quantization.method == FP8:
        shape, dtype, kind = tensor.shape, DType.FP8, "FP8Linear"
    elif quantization.method == AWQ:
        shape, dtype, kind = (rows, columns * 4 // _WORD), DType.INT32, "WQLinear_GEMM"
    else:
        shape = (ceil_div(rows * quantization.bits, _WORD), columns)
        dtype, kind = DType.INT32, "QuantLinear"
    return Tensor(tensor.name, shape, dtype, False, kind, unpacked=(columns, rows))


def statistics(tensor: Tensor, quantization: Quantization) -> list[Tensor]:
    """Scales and zero points of each group, and where GPTQ notes which group a row is of."""
    rows, columns = _in_and_out(tensor)

    def of(key: str, shape: tuple[int, ...], dtype: DType) -> Tensor:
        return Tensor(f"{tensor.module}.{key}", shape, dtype, False, "QuantState")

    if quantization.method == FP8:
        side = quantization.group
        shape = (ceil_div(columns, side), ceil_div(rows, side)) if side else (1,)
        return [of("weight_scale_inv", shape, DType.FP32)]
    groups = ceil_div(rows, quantization.group or rows)
    found = [
        of("qzeros", (groups, ceil_div(columns * quantization.bits, _WORD)), DType.INT32),
        of("scales", (groups, columns), DType.FP16),
    ]
    return found if quantization.method == AWQ else [*found, of("g_idx", (rows,), DType.INT32)]


def _in_and_out(tensor: Tensor) -> tuple[int, int]:
    first, second = tensor.shape
    return (first, second) if tensor.module_type == "Conv1D" else (second, first)
