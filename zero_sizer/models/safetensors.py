"""Tensor shapes from safetensors files, of which only the headers are read.

The format: 8 bytes little-endian length, then that many bytes of JSON
(https://github.com/huggingface/safetensors#format).
"""

import json
import os
import re
import struct
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from zero_sizer.errors import InputError, UnsupportedError
from zero_sizer.models.spec import Architecture, ModelSpec, Tensor
from zero_sizer.units import DType

_MAX_HEADER = 100_000_000  # the format's own limit
_MAX_DIM = 2**48
_DTYPES = {
    "F64": DType.FP64,
    "F32": DType.FP32,
    "F16": DType.FP16,
    "BF16": DType.BF16,
    "F8_E4M3": DType.FP8,
    "F8_E5M2": DType.FP8,
    "I64": DType.INT64,
    "I32": DType.INT32,
    "I8": DType.INT8,
    "U8": DType.UINT8,
    "BOOL": DType.BOOL,
}
_FLOATING = frozenset({DType.FP64, DType.FP32, DType.FP16, DType.BF16, DType.FP8})


def load_safetensors(path: Path) -> ModelSpec:
    """The tensors of one file, or of all the shards that an index names.

    A file does not say which class reads it, nor in which order: tensors come in natural name
    order, without module types. A ``config.json`` beside it gives the widths.

    Raises:
        InputError: not a safetensors file, broken, or a shard is missing.
        UnsupportedError: a dtype that zero_sizer does not know.
    """
    shards = _shards(path) if path.name.endswith(".json") else [path]
    entries: dict[str, tuple[tuple[int, ...], DType]] = {}
    for shard in shards:
        for name, entry in _header(shard).items():
            if name != "__metadata__":
                entries[name] = _entry(name, entry, shard)
    if not entries:
        raise InputError("holds no tensors", where=str(path))
    usual = Counter(dtype for _, dtype in entries.values()).most_common(1)[0][0]
    arch, fields = _config_beside(path)
    return ModelSpec(
        name=path.parent.resolve().name if arch else path.name.removesuffix(".safetensors"),
        origin=f"safetensors header {path}",
        parameters=tuple(_tensors(entries, usual)),
        arch=arch or Architecture(),
        hf_config=fields or {"dtype": usual.value},
    )


def _tensors(
    entries: Mapping[str, tuple[tuple[int, ...], DType]], usual: DType
) -> Iterable[Tensor]:
    for name in sorted(entries, key=_natural):
        shape, dtype = entries[name]
        own = None if dtype is usual else dtype
        yield Tensor(name, shape, own, trainable=dtype in _FLOATING)


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts ``layers.2`` before ``layers.10``."""
    parts = re.split(r"(\d+)", name)
    return [(int(p), "") if p.isascii() and p.isdigit() else (-1, p) for p in parts]


def _read(path: Path, size: int, offset: int = 0) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(size)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path)) from error


def _header(path: Path) -> Mapping[str, Any]:
    start = _read(path, 8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    if not 2 <= length <= _MAX_HEADER or length + 8 > os.path.getsize(path):
        raise InputError("is not a safetensors file, or is cut off", where=str(path))
    return _json_object(_read(path, length, 8), path)


def _json_object(text: bytes, path: Path) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"holds broken JSON: {error}", where=str(path)) from error
    if not isinstance(value, dict):
        raise InputError("holds no JSON object", where=str(path))
    return value


def _entry(name: str, entry: Any, path: Path) -> tuple[tuple[int, ...], DType]:
    shape = entry.get("shape") if isinstance(entry, dict) else None
    valid = isinstance(shape, list) and all(type(n) is int and 0 <= n < _MAX_DIM for n in shape)
    if not isinstance(shape, list) or not valid:
        raise InputError(f"tensor {name!r} has no valid shape", where=str(path))
    dtype = _DTYPES.get(str(entry.get("dtype")))
    if dtype is None:
        raise UnsupportedError(
            f"tensor {name!r} has dtype {entry.get('dtype')!r}, which is not modelled",
            where=str(path),
        )
    return tuple(shape), dtype


def _shards(index: Path) -> list[Path]:
    """The files beside ``index`` that it names."""
    weight_map = _json_object(_read(index, _MAX_HEADER), index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError("has no weight_map", where=str(index))
    names = sorted({str(name) for name in weight_map.values()})
    for name in names:
        if Path(name).name != name:
            raise InputError(f"names the file {name!r} outside its folder", where=str(index))
        if not (index.parent / name).is_file():
            raise InputError(f"names the shard {name!r}, which is missing", where=str(index))
    return [index.parent / name for name in names]


def _config_beside(path: Path) -> tuple[Architecture | None, Mapping[str, Any]]:
    config = path.parent / "config.json"
    if not config.is_file():
        return None, {}
    from zero_sizer.models.hf_config import read_config

    fields = read_config(config)
    return fields.arch, fields.values
