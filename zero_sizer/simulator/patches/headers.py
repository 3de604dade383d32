"""safetensors files read by their headers: shapes and dtypes, no bytes of weights."""

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from zero_sizer.simulator.undo import Patches

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_LENGTH = 8  # bytes of the header's own length, in front of it


def install(patches: Patches) -> None:
    """Replaces safetensors' readers, and lets its writers write nothing."""
    import safetensors
    import safetensors.torch
    from transformers import modeling_utils

    for module in (safetensors, safetensors.torch, modeling_utils):
        patches.set(module, "safe_open", _File)
    patches.set(safetensors.torch, "load_file", load_file)
    patches.set(safetensors.torch, "save_file", lambda *args, **kwargs: None)
    patches.set(safetensors.torch, "save_model", lambda *args, **kwargs: None)


def load_file(filename: Any, device: Any = "cpu", **options: Any) -> dict[str, Any]:
    """``safetensors.torch.load_file``."""
    with _File(filename, framework="pt", device=device) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)


def _header(path: Any) -> dict[str, Any]:
    with Path(path).open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(_LENGTH))
        header: dict[str, Any] = json.loads(file.read(length))
    return header


class _File:
    """``safetensors.safe_open``."""

    def __init__(
        self, filename: Any, framework: str = "pt", device: Any = "cpu", **options: Any
    ) -> None:
        self._entries = _header(filename)
        self._metadata: Mapping[str, str] | None = self._entries.pop("__metadata__", None)
        self._device = torch.device("cuda", device) if isinstance(device, int) else device

    def __enter__(self) -> "_File":
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing is open."""

    def metadata(self) -> Mapping[str, str] | None:
        return self._metadata

    def keys(self) -> list[str]:
        return list(self._entries)

    offset_keys = keys

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def get_tensor(self, name: str) -> Any:
        entry = self._entries[name]
        return torch.empty(entry["shape"], dtype=_DTYPES[entry["dtype"]], device=self._device)

    def get_slice(self, name: str) -> "_Slice":
        return _Slice(self, self._entries[name], name)


class _Slice:
    """A tensor of the file that is not read yet."""

    def __init__(self, file: _File, entry: Mapping[str, Any], name: str) -> None:
        self._file = file
        self._entry = entry
        self._name = name

    def get_shape(self) -> list[int]:
        return list(self._entry["shape"])

    def get_dtype(self) -> str:
        return str(self._entry["dtype"])

    def __getitem__(self, index: Any) -> Any:
        return self._file.get_tensor(self._name)[index]
