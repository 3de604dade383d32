"""Memory of this process and its GPU, as PyTorch, the driver and the kernel count it."""

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import torch

from zero_sizer.dryrun.owners import GPU, HOST
from zero_sizer.units import KIB

_CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
Figures = dict[str, dict[str, int]]


class Meter:
    """Reads the figures of one rank.

    Args:
        resets_peaks: ``torch.cuda.reset_peak_memory_stats`` may be called, so that each phase has a
            peak of its own; otherwise phases have none.
    """

    def __init__(self, *, resets_peaks: bool = True) -> None:
        self._process = psutil.Process()
        self._device = torch.cuda.current_device() if torch.cuda.is_available() else None
        self._resets_peaks = resets_peaks and self._device is not None
        self.has_peaks = self._resets_peaks

    @property
    def has_gpu(self) -> bool:
        """True if the rank computes on a GPU."""
        return self._device is not None

    @property
    def is_simulated(self) -> bool:
        """True under ``dryrun --how simulated``: its GPU answers the same questions."""
        return str(torch.cuda.memory_allocated.__module__).startswith("zero_sizer.")

    def begin(self) -> None:
        """A phase begins: its peak starts from what is live."""
        if self._resets_peaks:
            torch.cuda.reset_peak_memory_stats(self._device)

    def read(self) -> Figures:
        """Device -> figure -> bytes."""
        found: Figures = {HOST: {"resident": int(self._process.memory_info().rss), **_most()}}
        if self._device is None:
            return found
        stats = torch.cuda.memory_stats(self._device)  # once: each question asks for all of them
        ends = {"current": "", "peak": "max_"} if self.has_peaks else {"current": ""}
        gpu = {
            f"{prefix}{what}": int(stats.get(f"{what}_bytes.all.{end}", 0))
            for what in ("allocated", "reserved")
            for end, prefix in ends.items()
        }
        with suppress(RuntimeError):  # a driver that does not tell
            free, total = torch.cuda.mem_get_info(self._device)
            gpu["used"] = int(total - free)
        return {GPU: gpu, **found}


def _most() -> dict[str, int]:
    """The most that the process ever held, where the kernel keeps it: peaks of loading too."""
    try:
        import resource
    except ImportError:  # no POSIX system
        return {}
    unit = 1 if sys.platform == "darwin" else KIB
    return {"max_resident": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}


def gpu_properties() -> Any:
    """PyTorch's properties of this rank's GPU; None without one."""
    if not torch.cuda.is_available():
        return None
    return torch.cuda.get_device_properties(torch.cuda.current_device())


def host_memory() -> int:
    """Bytes that the processes of this node may use: its memory, or its container's."""
    limits = [int(psutil.virtual_memory().total)]
    for path in _CGROUP_LIMITS:
        with suppress(OSError, ValueError):  # no such file, or "max"
            limits.append(int(path.read_text()))
    return min(limits)
