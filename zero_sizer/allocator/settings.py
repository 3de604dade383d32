"""``PYTORCH_ALLOC_CONF`` (formerly ``PYTORCH_CUDA_ALLOC_CONF``) as PyTorch 2.13 reads it.

Sources (torch 2.13.0): c10/core/AllocatorConfig.h (``ConfigTokenizer``,
``AcceleratorAllocatorConfig``) and c10/cuda/CUDAAllocatorConfig.h (``getKeys``). Bounds were tried
on the 2.13.0 libraries; tests/allocator/test_allocator_settings.py asks the installed one.
"""

import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from zero_sizer.errors import InputError, UnsupportedError
from zero_sizer.units import GPU_BLOCK, MIB
from zero_sizer.util.records import dataclass

UNLIMITED = 2**64 - 1
MIN_BLOCK_SIZE = GPU_BLOCK
SMALL_SIZE = 1 * MIB
SMALL_SEGMENT = 2 * MIB
MIN_LARGE_ALLOC = 10 * MIB
ROUND_LARGE = 2 * MIB
DEFAULT_LARGE_SEGMENT = 20 * MIB
_INTERVALS = 16  # 1 MiB, 2 MiB, ... 32 GiB and above

_IGNORED = frozenset(  # accepted by PyTorch; they change speed or threads, not bytes
    {
        "graph_capture_record_stream_reuse",
        "pinned_free_catch_all",
        "pinned_num_register_threads",
        "pinned_use_background_threads",
        "pinned_use_cuda_host_register",
        "pinned_use_hip_host_register",
        "release_lock_on_cudamalloc",
        "release_lock_on_hipmalloc",
    }
)


@dataclass(frozen=True, kw_only=True)
class AllocatorSettings:
    """PyTorch's allocator options. Sizes in bytes; the defaults are PyTorch's.

    Attributes:
        max_split_size: blocks this large are not split for smaller requests.
        max_non_split_rounding_size: how much larger than an oversize request a reused block may be.
        large_segment_size: segment behind requests over 1 MiB and below 10 MiB; also the large page
            of expandable segments.
        roundup_power2_divisions: steps between powers of two, one entry per doubling from 1 MiB up.
        garbage_collection_threshold: share of the process' limit above which old cached blocks go;
            0 is off.
        expandable_segments: grow one segment per stream and pool in pages.
        per_process_memory_fraction: share of the device this process may reserve; 1.0 is no limit.
        throw_on_cudamalloc_oom: refuse at the limit instead of freeing cached blocks first.
        pinned_max_round_threshold: pinned requests above it are not rounded to a power of two.
        pinned_max_cached_size: pinned blocks above it are freed at once, and not rounded.
        pinned_reserve_segment_size: pinned segment taken at start, that requests are cut from.
    """

    max_split_size: int = UNLIMITED
    max_non_split_rounding_size: int = DEFAULT_LARGE_SEGMENT
    large_segment_size: int = DEFAULT_LARGE_SEGMENT
    roundup_power2_divisions: tuple[int, ...] = (0,) * _INTERVALS
    garbage_collection_threshold: float = 0.0
    expandable_segments: bool = False
    per_process_memory_fraction: float = 1.0
    throw_on_cudamalloc_oom: bool = False
    pinned_max_round_threshold: int = UNLIMITED
    pinned_max_cached_size: int = UNLIMITED
    pinned_reserve_segment_size: int = 0

    def round_size(self, num_bytes: int) -> int:
        """Bytes of the block that serves a request (``DeviceCachingAllocator::round_size``)."""
        if num_bytes < MIN_BLOCK_SIZE:
            return MIN_BLOCK_SIZE
        interval = min(max(num_bytes.bit_length() - 1 - 20, 0), _INTERVALS - 1)
        divisions = self.roundup_power2_divisions[interval]
        if divisions > 1 and num_bytes > MIN_BLOCK_SIZE * divisions:
            return _next_division(num_bytes, divisions)
        return -(-num_bytes // MIN_BLOCK_SIZE) * MIN_BLOCK_SIZE

    def segment_size(self, block_size: int) -> int:
        """Bytes asked of the device for a new block (``get_allocation_size``)."""
        if block_size <= SMALL_SIZE:
            return SMALL_SEGMENT
        if block_size < MIN_LARGE_ALLOC:
            return self.large_segment_size
        return -(-block_size // ROUND_LARGE) * ROUND_LARGE


def _next_division(num_bytes: int, divisions: int) -> int:
    floor = 1 << (num_bytes.bit_length() - 1)
    if floor == num_bytes:
        return num_bytes
    step = floor >> (divisions.bit_length() - 1)
    return -(-num_bytes // step) * step if step else floor << 1


def settings_from_environment() -> AllocatorSettings:
    """Settings of the variable that PyTorch would read: the newer name wins.

    Raises:
        InputError: as ``parse_alloc_conf``.
        UnsupportedError: as ``parse_alloc_conf``.
    """
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        if os.environ.get(name):
            return parse_alloc_conf(os.environ[name], where=name)
    return AllocatorSettings()


def parse_alloc_conf(text: str, *, where: str = "PYTORCH_ALLOC_CONF") -> AllocatorSettings:
    """Settings named by ``text``, e.g. ``max_split_size_mb:128,expandable_segments:True``.

    Args:
        text: the variable's value; empty means PyTorch's defaults.
        where: what to name in an error.

    Raises:
        InputError: an unknown option, or a value that PyTorch would refuse.
        UnsupportedError: ``backend:cudaMallocAsync``, whose memory the CUDA driver manages.
    """
    values: dict[str, Any] = {}
    for key, value in _pairs(text, where):
        reader = _READERS.get(key)
        if reader is None and key not in _IGNORED:
            raise InputError(
                f"unknown allocator option {key!r}",
                remedy="known: " + ", ".join(KNOWN_OPTIONS),
                where=where,
            )
        if reader is not None:
            try:
                values |= reader(value)
            except (ValueError, IndexError) as error:
                raise InputError(f"{key}:{value} is refused: {error}", where=where) from None
    return _checked(values, where)


def _pairs(text: str, where: str) -> list[tuple[str, str]]:
    """Splits ``key:value,key:[a:b,c:d]``; PyTorch ignores white space."""
    squeezed = "".join(text.split())
    pattern = re.compile(r"([^:,\[\]]+):(\[[^\]]*\]|[^:,\[\]]+)(,|$)")
    pairs, position = [], 0
    while position < len(squeezed):
        match = pattern.match(squeezed, position)
        if match is None:
            raise InputError(
                f"cannot read {squeezed[position:]!r}",
                remedy="write key:value,key:value",
                where=where,
            )
        pairs.append((match[1], match[2]))
        position = match.end()
    return pairs


def _checked(values: dict[str, Any], where: str) -> AllocatorSettings:
    large = values.get("large_segment_size", DEFAULT_LARGE_SEGMENT)
    # wherever it stands in the string, large_segment_size_mb moves the bound of the other two
    for name in ("max_split_size", "max_non_split_rounding_size"):
        if values.get(name, UNLIMITED) < large:
            raise InputError(
                f"{name} is too small: it must be at least {large // MIB} MiB", where=where
            )
    values.setdefault("max_non_split_rounding_size", large)
    return AllocatorSettings(**values)


def _mib(name: str, *, above: int = -1) -> Callable[[str], Mapping[str, Any]]:
    def read(value: str) -> Mapping[str, Any]:
        number = int(value)
        if number <= above:
            raise ValueError(f"it must be more than {above} MiB")
        return {name: min(number * MIB, UNLIMITED)}

    return read


def _flag(name: str) -> Callable[[str], Mapping[str, Any]]:
    def read(value: str) -> Mapping[str, Any]:
        if value not in ("True", "False"):
            raise ValueError("write True or False")
        return {name: value == "True"}

    return read


def _fraction(name: str, *, ends: bool) -> Callable[[str], Mapping[str, Any]]:
    def read(value: str) -> Mapping[str, Any]:
        number = float(value)
        if not (0.0 <= number <= 1.0 if ends else 0.0 < number < 1.0):
            raise ValueError("it must lie between 0 and 1")
        return {name: number}

    return read


def _backend(value: str) -> Mapping[str, Any]:
    if value == "cudaMallocAsync":
        raise UnsupportedError(
            "backend:cudaMallocAsync is not modelled: the CUDA driver manages that memory"
        )
    if value != "native":
        raise ValueError("the backends are native and cudaMallocAsync")
    return {}


def _power_of_two(number: int, what: str) -> int:
    if number < 1 or number & (number - 1):
        raise ValueError(f"{what} must be a power of two")
    return number


def _divisions(value: str) -> Mapping[str, Any]:
    """``8``, or ``[256:1,512:2,>:8]`` (interval in MiB : divisions)."""
    if not value.startswith("["):
        return {"roundup_power2_divisions": (_power_of_two(int(value), "divisions"),) * _INTERVALS}
    table, last, first = [0] * _INTERVALS, 0, True
    for part in value[1:-1].split(","):
        bound, _, text = part.partition(":")
        divisions = int(text) and _power_of_two(int(text), "divisions")
        if bound == ">":
            table[last + 1 :] = [divisions] * (_INTERVALS - last - 1)
            continue
        last = min(_power_of_two(int(bound), "an interval").bit_length() - 1, _INTERVALS - 1)
        if first:  # everything below the first interval follows it
            table[:last] = [divisions] * last
            first = False
        table[last] = divisions
    return {"roundup_power2_divisions": tuple(table)}


_READERS: Mapping[str, Callable[[str], Mapping[str, Any]]] = {
    "backend": _backend,
    "expandable_segments": _flag("expandable_segments"),
    "garbage_collection_threshold": _fraction("garbage_collection_threshold", ends=False),
    "large_segment_size_mb": _mib("large_segment_size", above=MIN_LARGE_ALLOC // MIB),
    "max_non_split_rounding_mb": _mib("max_non_split_rounding_size"),
    "max_split_size_mb": _mib("max_split_size"),
    "per_process_memory_fraction": _fraction("per_process_memory_fraction", ends=True),
    "pinned_max_cached_size_mb": _mib("pinned_max_cached_size"),
    "pinned_max_round_threshold_mb": _mib("pinned_max_round_threshold"),
    "pinned_reserve_segment_size_mb": _mib("pinned_reserve_segment_size", above=0),
    "roundup_power2_divisions": _divisions,
    "throw_on_cudamalloc_oom": _flag("throw_on_cudamalloc_oom"),
}
KNOWN_OPTIONS = tuple(sorted({*_READERS, *_IGNORED}))
