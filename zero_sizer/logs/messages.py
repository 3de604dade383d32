"""Messages of memory failures: PyTorch 1.4 to 2.13, the kernel, SLURM, NCCL and the launchers.

Sources: c10/cuda/CUDACachingAllocator.cpp (1.4, 1.10, 2.0, 2.1, 2.5), c10/core/impl/alloc_cpu.cpp,
deepspeed/launcher/launch.py:331-348, torch/distributed/elastic/multiprocessing/api.py, Linux
mm/oom_kill.c, slurm's src/slurmd/common/slurmstepd... and src/plugins/task/cgroup.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from zero_sizer.logs.symptom import Kind
from zero_sizer.util.interval import Interval

_UNITS = {"bytes": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "kB": 2**10}
_SIZE = r"([0-9]{1,15}(?:\.[0-9]{1,3})?) (bytes|KiB|MiB|GiB)"
_SEGMENT = 2 * 2**20  # large requests become segments of this multiple, which is what is printed


class Row(NamedTuple):
    """One message.

    Attributes:
        kind: what it means.
        pattern: a part of the line; its groups are the size asked for and its unit.
    """

    kind: Kind
    pattern: "re.Pattern[str]"


def _any(kind: Kind, *patterns: str) -> Row:
    return Row(kind, re.compile("|".join(patterns)))


ROWS = (
    _any(Kind.GPU, r"(?:CUDA|HIP|XPU|NPU) out of memory\. Tried to allocate " + _SIZE),
    _any(
        Kind.SHARED,
        r"insufficient shared memory \(shm\)",
        r"unable to (?:open|write to) shared memory object",
        r"No space left on device: '/dev/shm",
    ),
    _any(
        Kind.NCCL,
        r"Cuda failure (?:2 )?'out of memory'",
        r"NCCL WARN.{0,200}out of memory",
    ),
    _any(Kind.PINNING, r"cudaHostAlloc|cudaHostRegister", r"pin_memory.{0,80}out of memory"),
    _any(
        Kind.GPU_UNKNOWN,
        r"CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED|hipErrorOutOfMemory",
    ),
    _any(
        Kind.HOST,
        r"DefaultCPUAllocator: (?:can't allocate memory|not enough memory): "
        r"you tried to allocate ([0-9]{1,18}) (bytes)",
    ),
    _any(Kind.HOST, "Unable to allocate " + _SIZE + " for an array"),
    _any(
        Kind.HOST,
        r"^(?:[\w.]{1,80}: )?MemoryError\b",
        r"std::bad_alloc|Cannot allocate memory",
    ),
    _any(
        Kind.HOST_KILLED,
        r"Out of memory: Killed process|Memory cgroup out of memory",
        r"oom-kill:constraint=|OOMKilled",
        r"[Dd]etected [0-9]{1,9} oom[-_]kill event|oom_kill event in",
        r"[Ee]xceeded (?:job|step) memory limit|OUT_OF_MEMORY",
    ),
    _any(
        Kind.KILLED,
        r"return code = -9\b|exit ?code\s{0,9}[:=]?\s{0,9}(?:-9|137)\b|exited with code 137\b",
        r"SIGKILL|[Ss]ignal:? ?9\b|Exit (?:status|code)[: ]+137\b",
        r"^(?:.{0,200}[: ])?Killed\s*$|: [0-9]{1,9} Killed ",
    ),
    _any(Kind.DISK, r"No space left on device|\[Errno 28\]|Disk quota exceeded"),
)
"""The first that is found in a line counts."""

_TOTAL = re.compile(r"total capac?i?ty of " + _SIZE + "|; " + _SIZE + " total capacity")
_FREE = re.compile(r"of which " + _SIZE + " is free|; " + _SIZE + " free")
_ALLOCATED = re.compile(_SIZE + " is allocated by PyTorch|; " + _SIZE + " already allocated")
_IDLE = re.compile(_SIZE + " is reserved by PyTorch but unallocated")
_RESERVED = re.compile(r"; " + _SIZE + " (?:reserved in total by PyTorch|cached)")
_IN_USE = re.compile(r"this process has " + _SIZE + " memory in use")
_PROCESS = re.compile(r"Process ([0-9]{1,10}) has " + _SIZE + " memory in use")
_GPU_INDEX = re.compile(r"\bGPU ([0-9]{1,4})(?: has|;)")
_RANK = re.compile(r"\[?\b[Rr]ank[ :]?([0-9]{1,7})\]?(?=[:\]\s])")
_RESIDENT = re.compile(r"anon-rss:([0-9]{1,15})kB")


def found_in(line: str) -> tuple[Kind, dict[str, Any]] | None:
    """The failure that a line tells of, with its figures; None where it tells of none."""
    for row in ROWS:
        match = row.pattern.search(line)
        if match is not None:
            return row.kind, dict(_figures(row.kind, match, line))
    return None


def _figures(kind: Kind, match: "re.Match[str]", line: str) -> Iterator[tuple[str, Any]]:
    rank = _RANK.search(line)
    if rank:
        yield "rank", int(rank[1])
    if kind is Kind.GPU:
        yield "requested", _printed(match[1], match[2], _SEGMENT)
        yield from _of_gpu(line)
    elif kind is Kind.HOST and match.re.groups:
        yield "requested", _printed(match[1], match[2], 0)
    resident = _RESIDENT.search(line)
    if resident:
        yield "resident", int(resident[1]) * 2**10


def _of_gpu(line: str) -> Iterator[tuple[str, Any]]:
    index = _GPU_INDEX.search(line)
    if index:
        yield "gpu", int(index[1])
    found: Mapping[str, int | None] = {
        "total": _size(_TOTAL, line),
        "free": _size(_FREE, line),
        "allocated": _size(_ALLOCATED, line),
        "idle": _size(_IDLE, line),
        "in_use": _size(_IN_USE, line),
    }
    yield from found.items()
    reserved, allocated = _size(_RESERVED, line), found["allocated"]
    if found["idle"] is None and reserved is not None and allocated is not None:
        yield "idle", max(reserved - allocated, 0)
    yield "others", _of_others(line, found["in_use"])


def _of_others(line: str, own: int | None) -> int:
    """Memory of other processes: of those that are listed all, or all but the one that is this."""
    listed = [int(float(size) * _UNITS[unit]) for _, size, unit in _PROCESS.findall(line)]
    return sum(listed) if own is not None else sum(sorted(listed)[:-1])


def _size(pattern: "re.Pattern[str]", line: str) -> int | None:
    match = pattern.search(line)
    if match is None:
        return None
    number, unit = [group for group in match.groups() if group is not None][:2]
    return int(float(number) * _UNITS[unit])


def _printed(number: str, unit: str, rounding: int) -> Interval:
    """What may have been asked for: printed with two decimals, of a size rounded up before."""
    scale = _UNITS[unit]
    value, half = float(number) * scale, scale / 200 if "." in number else 0.0
    return Interval(max(int(value - half - rounding), 0), int(value), int(value + half))
