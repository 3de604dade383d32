"""Bytes, elements and dtypes: the only place that knows what a GiB is and how large a dtype is."""

import re
from enum import Enum

KIB, MIB, GIB, TIB = 2**10, 2**20, 2**30, 2**40
GPU_BLOCK = 512
"""Bytes that torch's CUDA allocator rounds each request up to (c10/core/AllocatorConfig.h)."""

_UNITS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "pb": 10**15,
    "kib": KIB,
    "mib": MIB,
    "gib": GIB,
    "tib": TIB,
    "pib": 2**50,
    # as free, top, Slurm and Docker print and read them; memory modules come in these, too
    **dict.fromkeys(("k", "ki"), KIB),
    **dict.fromkeys(("m", "mi"), MIB),
    **dict.fromkeys(("g", "gi"), GIB),
    **dict.fromkeys(("t", "ti"), TIB),
}
_COUNTS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}
_COUNT = re.compile(r"(\d+(?:\.\d*)?(?:e[+]?\d{1,3})?)\s*([kmbt]?)", re.IGNORECASE)
_SIZE = re.compile(r"\s*(\d+(?:\.\d*)?(?:[eE][+]?\d+)?)\s*([a-zA-Z]*)\s*")


class DType(Enum):
    """A tensor element type, valued by torch's name (two types may share a size)."""

    FP64 = "float64"
    FP32 = "float32"
    BF16 = "bfloat16"
    FP16 = "float16"
    FP8 = "float8_e4m3fn"
    COMPLEX64 = "complex64"
    INT64 = "int64"
    INT32 = "int32"
    INT8 = "int8"
    UINT8 = "uint8"
    BOOL = "bool"

    __hash__ = object.__hash__  # members are unique; Enum's own hash is slow

    @property
    def is_floating(self) -> bool:
        """True if the dtype holds floating-point numbers, which a cast of the model reaches."""
        return "float" in self.value

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return _ITEMSIZE[self]


_ITEMSIZE = {
    DType.FP64: 8,
    DType.FP32: 4,
    DType.BF16: 2,
    DType.FP16: 2,
    DType.FP8: 1,
    DType.COMPLEX64: 8,
    DType.INT64: 8,
    DType.INT32: 4,
    DType.INT8: 1,
    DType.UINT8: 1,
    DType.BOOL: 1,
}


CODES = (DType.UINT8, DType.INT8)
"""What packed weights are stored in, one byte each."""


def num_bytes(numel: int, dtype: DType) -> int:
    """Bytes of ``numel`` elements of ``dtype``: the one place where elements become bytes."""
    return numel * dtype.itemsize


def ceil_div(numerator: int, denominator: int) -> int:
    """Smallest integer not below ``numerator / denominator``, without floats."""
    return -(-numerator // denominator)


def round_up(value: int, multiple: int) -> int:
    """Smallest multiple of ``multiple`` not below ``value``."""
    return ceil_div(value, multiple) * multiple


def next_power_of_two(value: int) -> int:
    """Smallest power of two not below ``value``; 0 stays 0."""
    return 1 << (value - 1).bit_length() if value > 0 else 0


def parse_size(text: str | int) -> int:
    """Bytes meant by ``"2TiB"``, ``"252G"`` (GiB), ``"80GB"`` (10^9) or a plain number of bytes.

    Raises:
        ValueError: not a size, negative, or an unknown unit.
    """
    if isinstance(text, int) and not isinstance(text, bool):
        if text < 0:
            raise ValueError(f"{text} is negative; a size is 0 or more bytes")
        return text
    match = _SIZE.fullmatch(text) if isinstance(text, str) else None
    unit = match.group(2).lower() if match else ""
    if match is None or unit not in _UNITS:
        raise ValueError(f"{text!r} is not a size; write for example 512GiB, 2TiB or 80GB")
    number = float(match.group(1)) * _UNITS[unit]
    if number > 2**70:
        raise ValueError(f"{text!r} is larger than any machine")
    return round(number)


def parse_count(value: object) -> int:
    """The number meant by ``"300B"``, ``"1.5T"``, ``1e12`` or ``"300_000"``; B is a thousand M.

    Raises:
        ValueError: not a number, or negative.
    """
    text = str(value).strip().replace("_", "").replace(",", "")[:64]
    match = None if isinstance(value, bool) else _COUNT.fullmatch(text)
    if match is None:
        raise ValueError(f"{str(value)[:40]!r} is not a number; write for example 300B or 1.5T")
    number = float(match.group(1)) * _COUNTS[match.group(2).lower()]
    if number > 2**100:
        raise ValueError(f"{str(value)[:40]!r} is more than there is")
    return round(number)


_ABSURD = 10**9 * GIB  # more than all memory there is: digits would only widen the tables


def format_gib(value: int) -> str:
    """``value`` bytes for a reader: GiB with two decimals, or MiB/KiB/B where GiB says nothing."""
    if abs(value) >= _ABSURD:
        return f"{value / GIB:.3g} GiB"
    for unit, size in (("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if abs(value) >= size // (100 if unit == "GiB" else 1):
            return f"{value / size:,.2f} {unit}"
    return f"{value} B"
