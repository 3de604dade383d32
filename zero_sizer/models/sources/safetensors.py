"""Tensor shapes from safetensors files, of which only the headers are read.

The format: 8 bytes little-endian length, then that many bytes of JSON
(https://github.com/huggingface/safetensors#format).
"""

import json
import re
import struct
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from zero_sizer.errors import InputError, UnsupportedError
from zero_sizer.models.spec import MAX_TENSORS, Architecture, ModelSpec, Tensor
from zero_sizer.units import DType
from zero_sizer.util.files import existing, read_bytes, read_part
from zero_sizer.util.spelling import shown

_FORMAT_MAX = 100_000_000
_MAX_HEADER = 16 * 2**20  # a tensor takes some 100 bytes; 100,000 of them fit
_MAX_NAME, _LONG_NUMBER = 500, re.compile(r"\d{7}")
_MAX_DIMS = 8
_MAX_SHARDS = 10_000
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
        if len(entries) > MAX_TENSORS:
            raise InputError(f"holds more than {MAX_TENSORS:,} tensors", where=str(path))
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
    return [(int(p), "") if p.isdecimal() else (-1, p) for p in parts]


def _header(path: Path) -> Mapping[str, Any]:
    start, size = read_part(path, 0, 8, "a safetensors file")
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    if not 2 <= length <= _FORMAT_MAX or length + 8 > size:
        raise InputError("is not a safetensors file, or is cut off", where=str(path))
    if length > _MAX_HEADER:
        raise InputError(f"has a header above {_MAX_HEADER >> 20} MiB", where=str(path))
    return _json_object(read_part(path, 8, length, "a safetensors file")[0], path)


def _json_object(text: bytes, path: Path) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"holds broken JSON: {error}", where=str(path)) from error
    if not isinstance(value, dict):
        raise InputError("holds no JSON object", where=str(path))
    return value


def _entry(name: str, entry: Any, path: Path) -> tuple[tuple[int, ...], DType]:
    if len(name) > _MAX_NAME or _LONG_NUMBER.search(name):
        raise InputError(f"the name {shown(name)} is no tensor's", where=str(path))
    shape = entry.get("shape") if isinstance(entry, dict) else None
    valid = (
        isinstance(shape, list)
        and len(shape) <= _MAX_DIMS
        and all(type(n) is int and 0 <= n < _MAX_DIM for n in shape)
    )
    if not isinstance(shape, list) or not valid:
        raise InputError(f"tensor {shown(name)} has no valid shape", where=str(path))
    dtype = _DTYPES.get(str(entry.get("dtype")))
    if dtype is None:
        raise UnsupportedError(
            f"tensor {shown(name)} has dtype {shown(entry.get('dtype'))}, which is not modelled",
            where=str(path),
        )
    return tuple(shape), dtype


def _shards(index: Path) -> list[Path]:
    """The files beside ``index`` that it names."""
    content = read_bytes(index, _MAX_HEADER, "a safetensors index")
    weight_map = _json_object(content, index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError("has no weight_map", where=str(index))
    names = sorted({str(name) for name in weight_map.values()})
    if len(names) > _MAX_SHARDS:
        raise InputError(f"names {len(names):,} shards", where=str(index))
    for name in names:
        if Path(name).name != name or "\0" in name:
            raise InputError(f"names the file {shown(name)} outside its folder", where=str(index))
        if existing(index.parent / name) is None:
            raise InputError(f"names the shard {shown(name)}, which is missing", where=str(index))
    return [index.parent / name for name in names]


def _config_beside(path: Path) -> tuple[Architecture | None, Mapping[str, Any]]:
    config = path.parent / "config.json"
    if not config.is_file():
        return None, {}
    from zero_sizer.models.sources.hf_config import read_config

    fields = read_config(config)
    return fields.arch, fields.values
