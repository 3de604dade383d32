"""Counts every live byte of a simulated run, by device, and its peaks."""

import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from zero_sizer.allocator.caching import CachingAllocator
from zero_sizer.allocator.pinned import PinnedAllocator
from zero_sizer.allocator.room import LimitedDevice
from zero_sizer.allocator.settings import settings_from_environment
from zero_sizer.units import GPU_BLOCK, next_power_of_two

GPU, HOST, PINNED, LOCKED, NVME = "gpu", "host", "pinned", "locked", "nvme"

_ROUNDED: dict[str, Callable[[int], int]] = {
    GPU: lambda num_bytes: -(-num_bytes // GPU_BLOCK) * GPU_BLOCK,
    HOST: lambda num_bytes: num_bytes,
    # ATen/core/CachingHostAllocator.h: every pinned request becomes a power of two.
    PINNED: next_power_of_two,
    LOCKED: lambda num_bytes: num_bytes,  # DeepSpeed's own: mlock of the size asked for
    NVME: lambda num_bytes: num_bytes,
}


class Event(NamedTuple):
    """One allocation or free, in the order in which they happened.

    Attributes:
        kind: ``alloc`` or ``free``.
        block: number of the allocation; never used twice.
        num_bytes: bytes asked for, before the allocator's rounding.
        stream: on which it was allocated; 0 is the default one.
        device: ``gpu``, ``host`` (pageable), ``pinned`` (by torch), ``locked`` (by DeepSpeed) or
            ``nvme``.
        phase: the training phase it happened in.
        module: qualified name of the module that was running; empty outside of one.
    """

    kind: str
    block: int
    num_bytes: int
    stream: int
    device: str
    phase: str
    module: str


class _Watch(weakref.ref[Any]):
    """A weak reference to a storage that remembers what was counted for it."""

    __slots__ = ("address", "block", "counted", "device", "num_bytes", "phase")

    address: int
    block: int
    counted: int
    device: str
    num_bytes: int
    phase: str


class Tracker:
    """Live bytes and peaks per device, storage by storage.

    A storage is counted when it is first seen and subtracted when torch frees it, so views count
    once and frees are exact. What PyTorch's caching allocators hold beyond that is followed too,
    with the options that ``PYTORCH_ALLOC_CONF`` names.

    Attributes:
        blas_bytes: workspace of cuBLAS on this GPU, one for each thread that multiplies matrices.
        phase: written into events; set by whoever drives the run.
        module: written into events; set by the module hooks.
        stream: current stream of the GPU, which allocates: 0 is the default one. A block serves
            requests of its own stream only.
        name_of_node: names the autograd node that runs, where no module does.
        events: every allocation and free, when asked for at construction.
        devices: GPUs of the sizes asked for at construction, following the same requests.
    """

    def __init__(
        self, *, keep_events: bool = False, room_bytes: Sequence[int] = (), blas_bytes: int = 0
    ) -> None:
        self.blas_bytes = blas_bytes
        self._multiplied: set[str] = set()
        self.phase = "init"
        self.module = ""
        self.stream = 0
        self.name_of_node: Callable[[], str] = str
        self.events: list[Event] | None = [] if keep_events else None
        self._live = dict.fromkeys(_ROUNDED, 0)
        self._peak = dict.fromkeys(_ROUNDED, 0)
        self._device_peak = dict.fromkeys(_ROUNDED, 0)
        self._host_peak = 0
        self._watches: dict[int, _Watch] = {}
        self._next_block = 0
        settings = settings_from_environment()
        self._gpu_cache, self._pinned_cache = CachingAllocator(settings), PinnedAllocator(settings)
        self.devices = tuple(LimitedDevice(num_bytes, settings) for num_bytes in room_bytes)
        self._reserved_peak = {GPU: 0, PINNED: 0}
        self._device_reserved_peak = 0

    def live(self, device: str) -> int:
        """Bytes now allocated on ``device``, after its allocator's rounding."""
        return self._live[device]

    def peak(self, device: str) -> int:
        """Largest ``live`` since ``start_phase``."""
        return self._peak[device]

    def live_host(self) -> int:
        """Host bytes, pageable, pinned and locked."""
        return self._live[HOST] + self._live[PINNED] + self._live[LOCKED]

    def peak_host(self) -> int:
        """Largest ``live_host`` since ``start_phase``."""
        return self._host_peak

    def reserved(self, device: str) -> int:
        """Bytes that PyTorch's allocator of ``gpu`` or ``pinned`` holds, cached ones included."""
        if device == PINNED:
            return self._pinned_cache.reserved
        return self._gpu_cache.segments.reserved

    def peak_reserved(self, device: str) -> int:
        """Largest ``reserved`` since ``start_phase``."""
        return self._reserved_peak[device]

    def device_peak_reserved(self) -> int:
        """Largest ``reserved`` of the GPU since ``reset_device_peak``."""
        return self._device_reserved_peak

    def empty_cache(self) -> None:
        """``torch.cuda.empty_cache``."""
        self._gpu_cache.empty_cache()
        for device in self.devices:
            device.empty_cache()
        if self.events is not None:
            self._log("empty_cache", -1, 0, GPU)

    def start_phase(self, phase: str) -> None:
        """Names what follows and lets its peak start from what is live now."""
        self.phase = phase
        self._peak = dict(self._live)
        self._host_peak = self.live_host()
        self._reserved_peak = {device: self.reserved(device) for device in (GPU, PINNED)}

    def device_peak(self, device: str) -> int:
        """Largest ``live`` since ``reset_device_peak``: what DeepSpeed asks its accelerator for."""
        return self._device_peak[device]

    def reset_device_peak(self) -> None:
        """``torch.cuda.reset_peak_memory_stats``."""
        self._device_peak = dict(self._live)
        self._device_reserved_peak = self.reserved(GPU)

    def watch(self, storage: Any, device: str) -> None:
        """Counts ``storage`` on ``device`` until torch frees it; a second call changes nothing.

        Args:
            storage: a ``torch.UntypedStorage``.
            device: any but ``nvme``.
        """
        address = storage._cdata
        if address in self._watches:
            return
        num_bytes = storage.nbytes()
        watch = _Watch(storage, self._forget)
        watch.address, watch.device, watch.num_bytes = address, device, num_bytes
        watch.phase = self.phase
        watch.block, watch.counted = self.allocate(device, num_bytes)
        self._watches[address] = watch

    def place(self, storage: Any) -> tuple[str, bool]:
        """(``gpu`` or ``host``, pinned) of a storage; one never seen lies on the host."""
        watch = self._watches.get(storage._cdata)
        device = watch.device if watch is not None else HOST
        return (GPU if device == GPU else HOST), device in (PINNED, LOCKED)

    def storages(self) -> Iterator[tuple[Any, str]]:
        """(storage, phase that created it) of every storage alive."""
        for watch in list(self._watches.values()):
            storage = watch()
            if storage is not None:
                yield storage, watch.phase

    def is_pinned(self, storage: Any) -> bool:
        """True if ``storage`` was counted as page-locked."""
        watch = self._watches.get(storage._cdata)
        return watch is not None and watch.device in (PINNED, LOCKED)

    def resized(self, storage: Any) -> None:
        """Counts ``storage`` anew if its size changed in place."""
        watch = self._watches.get(storage._cdata)
        if watch is not None and watch.num_bytes != storage.nbytes():
            self.move(storage, watch.device)

    def move(self, storage: Any, device: str) -> None:
        """Counts ``storage`` on ``device`` from now on."""
        watch = self._watches.pop(storage._cdata, None)
        if watch is not None:
            self.free(watch.device, watch.block, watch.num_bytes, watch.counted)
        self.watch(storage, device)

    def multiplied(self, thread: str) -> None:
        """Counts cuBLAS's workspace at the first matrix product of a thread; it stays for good."""
        if thread not in self._multiplied and self.blas_bytes:
            self._multiplied.add(thread)
            self.allocate(GPU, self.blas_bytes)

    def allocate(self, device: str, num_bytes: int) -> tuple[int, int]:
        """Counts ``num_bytes``; returns the block's number and the bytes counted for it."""
        counted = _ROUNDED[device](num_bytes)
        block = self._next_block
        self._next_block = block + 1
        live = self._live[device] = self._live[device] + counted
        if live > self._peak[device]:
            self._peak[device] = live
        if live > self._device_peak[device]:
            self._device_peak[device] = live
        if device == GPU:
            self._cache_on_gpu(block, num_bytes)
        else:
            self._host_peak = max(self._host_peak, self.live_host())
            if device == PINNED:
                self._pinned_cache.allocate(block, num_bytes)
                reserved = max(self._reserved_peak[PINNED], self._pinned_cache.reserved)
                self._reserved_peak[PINNED] = reserved
        if self.events is not None:
            self._log("alloc", block, num_bytes, device)
        return block, counted

    def free(self, device: str, block: int, num_bytes: int, counted: int) -> None:
        """Takes back what ``allocate`` counted."""
        self._live[device] -= counted
        if self.events is not None:
            self._log("free", block, num_bytes, device)
        if device == GPU:
            self._gpu_cache.free(block)
            for limited in self.devices:
                limited.free(block)
        elif device == PINNED:
            self._pinned_cache.free(block)

    def _cache_on_gpu(self, block: int, num_bytes: int) -> None:
        self._gpu_cache.allocate(block, num_bytes, self.stream)
        for limited in self.devices:
            limited.allocate(block, num_bytes, self.phase, self.stream)
        reserved = self._gpu_cache.segments.reserved
        if reserved > self._reserved_peak[GPU]:
            self._reserved_peak[GPU] = reserved
        if reserved > self._device_reserved_peak:
            self._device_reserved_peak = reserved

    def _log(self, kind: str, block: int, num_bytes: int, device: str) -> None:
        if self.events is not None:
            module = self.module or self.name_of_node()
            held = self._gpu_cache.live.get(block) if device == GPU else None
            stream = held.stream if held is not None else 0
            self.events.append(Event(kind, block, num_bytes, stream, device, self.phase, module))

    def _forget(self, watch: weakref.ref[Any]) -> None:
        if isinstance(watch, _Watch) and self._watches.pop(watch.address, None) is not None:
            self.free(watch.device, watch.block, watch.num_bytes, watch.counted)
