"""Live tensor bytes of a DeepSpeed engine by category. Runs inside a rank; needs torch.

Storages are counted, not tensors: views share one storage, and a storage is counted once, for the
first owner that reaches it. On a machine with GPUs the storage's own device says where it lies.
On the CPU accelerator every storage lies on the host; there the place is the one DeepSpeed would
have chosen: what the engine asked to pin is pinned host memory, optimizer data is on the host
exactly with ``offload_optimizer``, parameter partitions exactly with ``offload_param``, the rest is
on the GPU.
"""

import gc
import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any

import torch

from zero_sizer.dryrun.owners import (
    GPU,
    HOST,
    WITH_OFFLOADED_PARAMETERS,
    WITH_OPTIMIZER,
    Owner,
    owned,
)
from zero_sizer.dryrun.recording import LiveBuffer

_MAX_DEPTH = 6


class PinnedStorages:
    """Storages that the engine asked the accelerator to pin.

    torch cannot pin without a device, and DeepSpeed's CPU accelerator returns the tensor as it
    is; so the request is noted instead. ``install`` changes the accelerator object of this
    process only.
    """

    def __init__(self) -> None:
        self._by_address: dict[int, weakref.ref[Any]] = {}

    def install(self, accelerator: Any) -> None:
        """Note every tensor that ``accelerator`` is asked to pin from now on."""
        pin, empty = accelerator.pin_memory, accelerator._torch_empty_pinned

        def noting_pin(tensor: Any, *args: Any, **kwargs: Any) -> Any:
            return self._note(pin(tensor, *args, **kwargs))

        def noting_empty(tensor: Any, shape: Any) -> Any:
            return self._note(empty(tensor, shape))

        accelerator.pin_memory = noting_pin
        accelerator._torch_empty_pinned = noting_empty

    def _note(self, tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        address = storage._cdata
        self._by_address[address] = weakref.ref(
            storage, lambda _: self._by_address.pop(address, None)
        )
        return tensor

    def __contains__(self, storage: Any) -> bool:
        return storage._cdata in self._by_address


class Placement:
    """Where a storage lies on a machine with GPUs.

    Args:
        engine: the DeepSpeed engine, or None before there is one (nothing is then offloaded).
        pinned: what was asked to be pinned, for the CPU accelerator.
    """

    def __init__(self, engine: Any, pinned: PinnedStorages | None = None) -> None:
        self._pinned = pinned
        wrapper = engine.optimizer if engine is not None else None
        self._optimizer_on_host = bool(
            getattr(wrapper, "cpu_offload", False) or getattr(wrapper, "offload_optimizer", False)
        )
        self._parameters_on_host = bool(getattr(wrapper, "offload_param", False))

    def __call__(self, storage: Any, place: str) -> tuple[str, bool]:
        """(``gpu`` or ``host``, pinned) of a storage whose owner's rule is ``place``."""
        if self._pinned is None:
            if storage.device.type != "cpu":
                return GPU, False
            return HOST, bool(storage.is_pinned())
        if storage in self._pinned:
            return HOST, True
        if place == WITH_OPTIMIZER:
            return (HOST if self._optimizer_on_host else GPU), False
        if place == WITH_OFFLOADED_PARAMETERS:
            return (HOST if self._parameters_on_host else GPU), False
        return place, False


class Tally:
    """Counts storages once and sums them by (name, category, device, pinned)."""

    def __init__(self, placement: Placement) -> None:
        self._placement = placement
        self._seen: set[int] = set()
        self._sums: dict[tuple[str, str, str, bool], list[int]] = {}
        self.on_host: set[int] = set()

    def add(self, owner: Owner) -> None:
        """Count every storage of the owner's tensors that no earlier owner had."""
        for tensor in tensors_in(owner.value):
            self.add_storage(tensor.untyped_storage(), owner.name, owner.category, owner.place)

    def add_storage(self, storage: Any, name: str, category: str, place: str) -> None:
        """Count one storage unless it was counted."""
        address, size = storage._cdata, storage.nbytes()
        if size == 0 or address in self._seen:
            return
        self._seen.add(address)
        device, pinned = self._placement(storage, place)
        if device == HOST:
            self.on_host.add(address)
        row = self._sums.setdefault((name, category, device, pinned), [0, 0])
        row[0] += size
        row[1] += 1

    def rows(self) -> tuple[LiveBuffer, ...]:
        """The sums, in the order their first storage was met."""
        return tuple(
            LiveBuffer(
                name=name,
                category=category,
                device=device,
                pinned=pinned,
                num_bytes=size,
                num_storages=count,
            )
            for (name, category, device, pinned), (size, count) in self._sums.items()
        )


def measure(
    engine: Any,
    *,
    pinned: PinnedStorages | None = None,
    extra: Iterable[Owner] = (),
    leftovers: Iterable[tuple[Any, str, str]] = (),
    walk: bool = True,
) -> Tally:
    """Live storages of a rank by owner.

    Args:
        engine: what ``deepspeed.initialize`` returned.
        pinned: pin requests on the CPU accelerator; None where storages know their device.
        extra: owners outside the engine (the batch).
        leftovers: (storage, name, category) of live storages the caller tracked itself.
        walk: also list every other tensor Python can reach, as ``other``.
    """
    tally = Tally(Placement(engine, pinned))
    for owner in owned(engine):
        tally.add(owner)
    for owner in extra:
        tally.add(owner)
    for storage, name, category in leftovers:
        tally.add_storage(storage, name, category, GPU)
    for tensor in reachable_tensors() if walk else ():
        name = f"{type(tensor).__name__}{tuple(tensor.shape)} {tensor.dtype}"
        tally.add_storage(tensor.untyped_storage(), name, "other", GPU)
    return tally


def tensors_in(value: Any, depth: int = 0) -> Iterator[torch.Tensor]:
    """Every tensor in a nesting of lists, tuples, mappings and dataclasses."""
    if isinstance(value, torch.Tensor):
        if _has_storage(value):
            yield value
        return
    if depth >= _MAX_DEPTH:
        return
    for item in _items(value):
        yield from tensors_in(item, depth + 1)


def _items(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, list | tuple):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return list(vars(value).values())
    return ()


def _has_storage(tensor: Any) -> bool:
    return bool(tensor.layout == torch.strided and tensor.device.type != "meta")


def reachable_tensors() -> Iterator[torch.Tensor]:
    """Every live tensor that Python's garbage collector knows (``gc.freeze`` hides older ones)."""
    for candidate in gc.get_objects():
        # Not isinstance: that asks lazy proxies for their class, which may run their imports.
        if issubclass(type(candidate), torch.Tensor) and _has_storage(candidate):
            yield candidate
