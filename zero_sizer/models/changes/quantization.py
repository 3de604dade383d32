"""Frozen base weights in 4 or 8 bits, as bitsandbytes keeps them.

Follows bitsandbytes 0.50.2 (functional.py:884 quantize_4bit, nn/modules.py:719 Int8Params) and
transformers 5.23 (integrations/bitsandbytes.py, which layers are converted).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from zero_sizer.errors import InputError, UnsupportedError
from zero_sizer.models.changes import packages
from zero_sizer.models.changes.records import BITSANDBYTES, Quantization
from zero_sizer.models.spec import ModelSpec, Tensor
from zero_sizer.units import DType, ceil_div
from zero_sizer.util.patterns import Budget, Pattern, PatternError
from zero_sizer.util.spelling import shown

PREFIX = "base_model.model."  # what peft puts before every name
BLOCK, _NESTED_BLOCK = 64, 256  # weights, and block maxima, that share one statistic
_LEVELS, _NESTED_LEVELS = 16, 256  # entries of the tables that codes index
_FLOATS = ("bfloat16", "float16", "float32")
_STORAGE = ("uint8", "bfloat16", "float16", "float32")
_SHORT = {"nf4": 4, "fp4": 4, "int8": 8}
_MOST_SKIPPED = 1_000
_WORDS = (
    "nf4, fp4 or int8, then double, storage=bfloat16, compute=bfloat16; for inference also gptq, "
    "awq or fp8, then bits=4, group=128"
)


def read(text: str, where: str) -> Quantization:
    """``nf4``, ``nf4,double,storage=bfloat16`` or ``int8``, as a flag or job file says it.

    Raises:
        InputError: something else.
    """
    kind, *more = (part.strip() for part in text.split(","))
    if kind in packages.METHODS:
        return packages.read(kind, more, where)
    if kind not in _SHORT:
        raise InputError(f"{shown(kind)} is no quantization", remedy=f"write {_WORDS}", where=where)
    fields: dict[str, Any] = {"load_in_4bit": True} if _SHORT[kind] == 4 else {"load_in_8bit": True}
    compute = "bnb_4bit_compute_dtype"
    fields[compute] = "bfloat16"
    names = {"storage": "bnb_4bit_quant_storage", "compute": compute}
    for word in more:
        key, _, value = word.partition("=")
        name = "bnb_4bit_use_double_quant" if word == "double" else names.get(key, "")
        if not name or (word != "double" and not value):
            raise InputError(
                f"{shown(word)} is no quantization", remedy=f"write {_WORDS}", where=where
            )
        if _SHORT[kind] == 8 or (name in fields and name != compute):
            reason = "is of 4 bits only" if _SHORT[kind] == 8 else "is said twice"
            raise InputError(f"{shown(word)} {reason}", remedy="leave it out", where=where)
        fields[name] = value or True
    found = from_fields(fields, where)
    if found is None:
        raise InputError(f"{shown(text)} is no quantization", where=where)
    return found


def from_fields(fields: Mapping[str, Any], where: str) -> Quantization | None:
    """The quantization of a config.json's ``quantization_config``; None where it switches none on.

    Raises:
        InputError: a value is wrong.
        UnsupportedError: another method than bitsandbytes.
    """
    method = fields.get("quant_method", "bitsandbytes")
    if method in packages.METHODS:
        return packages.from_fields(fields, where)
    if method != BITSANDBYTES:
        raise UnsupportedError(
            f"weights quantized by {shown(method)} are not modelled; bitsandbytes', GPTQ, AWQ and "
            "fp8 are",
            where=where,
        )
    four, eight = fields.get("load_in_4bit") is True, fields.get("load_in_8bit") is True
    if four and eight:
        raise InputError("load_in_4bit and load_in_8bit are both true", where=where)
    if not four and not eight:
        return None
    skipped = fields.get("llm_int8_skip_modules")
    if skipped is not None:
        _require_names(skipped, where)
    return Quantization(
        bits=4 if four else 8,
        double=fields.get("bnb_4bit_use_double_quant") is True,
        storage=_dtype(fields, "bnb_4bit_quant_storage", "uint8", _STORAGE, where),
        compute=_dtype(fields, "bnb_4bit_compute_dtype", "float32", _FLOATS, where),
        skipped=None if skipped is None else tuple(skipped),
        origin=where,
    )


def _require_names(skipped: Any, where: str) -> None:
    if not isinstance(skipped, list) or not all(isinstance(name, str) for name in skipped):
        message = f"llm_int8_skip_modules is {shown(skipped)}, not a list of names"
        raise InputError(message, where=where)
    if len(skipped) > _MOST_SKIPPED:
        message = f"llm_int8_skip_modules holds {len(skipped):,} names"
        raise InputError(message, remedy=f"at most {_MOST_SKIPPED:,} are read", where=where)


def _dtype(
    fields: Mapping[str, Any], key: str, default: str, known: tuple[str, ...], where: str
) -> DType:
    value = str(fields.get(key) or default).removeprefix("torch.")
    if value not in known:
        raise InputError(f"{key} is {shown(value)}, not one of {', '.join(known)}", where=where)
    return DType(value)


def with_quantization(spec: ModelSpec, quantization: Quantization) -> ModelSpec:
    """``spec`` with its linear layers quantized; their statistics become buffers.

    Args:
        spec: without an adapter; that comes on top.
        quantization: how.

    Raises:
        InputError: it has no layer that would be.
    """
    skipped = _Skipped(_skipped(spec, quantization), quantization.origin)
    parameters: list[Tensor] = []
    buffers: list[Tensor] = []
    for tensor in spec.parameters:
        matrix = replace(tensor, shape=spec.matrix_of(tensor))
        if not _is_converted(matrix, skipped):
            parameters.append(replace(tensor, trainable=False))
            continue
        stored = tensor if quantization.method == BITSANDBYTES else matrix
        parameters.append(packed(stored, quantization))
        buffers += statistics(matrix, quantization)
    if not buffers:
        raise InputError("the model has no linear layer to quantize", where=quantization.origin)
    return replace(
        spec,
        name=f"{spec.name} {quantization.describe()}",
        parameters=tuple(parameters),
        buffers=(*spec.buffers, *buffers),
        quantization=quantization,
        base=spec,
    )


def _is_converted(tensor: Tensor, skipped: "_Skipped") -> bool:
    """transformers converts what is exactly ``nn.Linear`` or ``Conv1D``."""
    is_linear = tensor.module_type in ("Linear", "Conv1D") and tensor.name.endswith(".weight")
    return is_linear and len(tensor.shape) == 2 and tensor.module not in skipped


def _skipped(spec: ModelSpec, quantization: Quantization) -> tuple[str, ...]:
    """Patterns that are not converted (transformers quantizers/base.py:39)."""
    if quantization.skipped is not None:
        return quantization.skipped
    if quantization.method != BITSANDBYTES:
        return packages.skipped(spec, quantization)
    last = spec.parameters[-1].module
    embedding = spec.parameters[0].module if spec.arch.tied_embeddings else ""
    heads = ("lm_head", "embed_out", "output", "cls.predictions.decoder")
    return tuple(name for name in (last, embedding, *heads) if name)


class _Skipped:
    """``should_convert_module`` of transformers (quantizers/quantizers_utils.py:26), negated."""

    def __init__(self, names: tuple[str, ...], where: str) -> None:
        boundary, budget = r"(?:(?<=\.)|(?=\.|$))", Budget()
        self._ends, self._where = names, where
        with self._one_line():
            self._patterns = [Pattern(rf"(?:{name}){boundary}", budget) for name in names]

    def __contains__(self, module: str) -> bool:
        if module.endswith(self._ends):
            return True
        with self._one_line():
            return any(pattern.matches(module) for pattern in self._patterns)

    @contextmanager
    def _one_line(self) -> Iterator[None]:
        try:
            yield
        except PatternError as error:
            message = f"llm_int8_skip_modules: a pattern {error}"
            raise InputError(message, where=self._where) from None


def packed(tensor: Tensor, quantization: Quantization) -> Tensor:
    """The weight as it is stored."""
    if quantization.method != BITSANDBYTES:
        return packages.packed(tensor, quantization)
    shape, dtype, kind = tensor.shape, DType.INT8, "Linear8bitLt"
    if quantization.bits == 4:
        rows = ceil_div(tensor.numel, 2 * quantization.storage.itemsize)
        shape, dtype, kind = (rows, 1), quantization.storage, "Linear4bit"
    return Tensor(tensor.name, shape, dtype, False, kind, unpacked=tensor.shape)


def statistics(tensor: Tensor, quantization: Quantization) -> list[Tensor]:
    """Tensors that undo the quantization: whole on every rank, at every stage."""
    if quantization.method != BITSANDBYTES:
        return packages.statistics(tensor, quantization)
    name = f"{tensor.module}.quant_state"

    def of(key: str, numel: int, dtype: DType = DType.FP32) -> Tensor:
        return Tensor(f"{name}.{key}", (numel,), dtype, False, "QuantState")

    if quantization.bits == 8:
        rows = tensor.shape[1] if tensor.module_type == "Conv1D" else tensor.shape[0]
        return [of("SCB", rows)]
    blocks = ceil_div(tensor.numel, BLOCK)
    if not quantization.double:
        return [of("absmax", blocks), of("code", _LEVELS)]
    return [
        of("absmax", blocks, DType.UINT8),
        of("code", _LEVELS),
        of("offset", 1),
        of("nested_absmax", ceil_div(blocks, _NESTED_BLOCK)),
        of("nested_code", _NESTED_LEVELS),
    ]


def converted(spec: ModelSpec) -> list[str]:
    """Names of the quantized layers, as the model without an adapter calls them."""
    found = [t.module for t in spec.parameters if t.unpacked is not None]
    return [name.removeprefix(PREFIX).removesuffix(".base_layer") for name in found]
