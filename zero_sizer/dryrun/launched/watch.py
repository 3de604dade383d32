"""Every storage that an operator creates, while it lives: the peak of a run without an allocator.

Only operators that pass torch's dispatcher are seen: what a communication library or a kernel
takes for itself is not.
"""

import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from zero_sizer.dryrun.measure import tensors_in


class StorageWatch(TorchDispatchMode):  # type: ignore[misc]  # torch is not followed by mypy
    """Follows allocations and frees of storages, phase by phase."""

    def __init__(self) -> None:
        super().__init__()
        self._live: dict[int, tuple[weakref.ref[Any], str]] = {}
        self._sizes: dict[int, int] = {}
        self._events: list[tuple[int, int]] = []
        self._at_start: dict[int, int] = {}
        self._phase = ""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator and note the storages of its results."""
        result = func(*args, **(kwargs or {}))
        for tensor in tensors_in(result):
            self._note(tensor.untyped_storage())
        return result

    def _note(self, storage: Any) -> None:
        address = storage._cdata
        if address in self._live or storage.device.type == "meta":
            return

        def freed(_: Any) -> None:
            self._live.pop(address, None)
            self._events.append((address, -self._sizes.pop(address, 0)))

        self._live[address] = (weakref.ref(storage, freed), self._phase)
        self._sizes[address] = storage.nbytes()
        self._events.append((address, storage.nbytes()))

    def adopt(self, *values: Any) -> None:
        """Note storages that exist already (a model built before the watch began)."""
        for value in values:
            for tensor in tensors_in(value):
                self._note(tensor.untyped_storage())

    def begin(self, phase: str) -> None:
        """Start a phase: its events and its peak begin here."""
        self._phase = phase
        self._events.clear()
        self._at_start = dict(self._sizes)

    def peak(self, on_host: set[int]) -> dict[str, int]:
        """Device -> most bytes at one instant since ``begin``.

        Args:
            on_host: addresses of the live storages known to lie on the host; whatever was freed
                within the phase counts as GPU memory, since nothing tells its place.
        """
        most: dict[str, int] = {}
        level = {"gpu": 0, "host": 0}
        for address, size in self._at_start.items():
            level["host" if address in on_host else "gpu"] += size
        most = dict(level)
        for address, change in self._events:
            device = "host" if address in on_host else "gpu"
            level[device] += change
            most[device] = max(most[device], level[device])
        return most

    def live(self) -> Iterator[tuple[Any, str]]:
        """(storage, phase that created it) of every storage alive."""
        for reference, phase in list(self._live.values()):
            storage = reference()
            if storage is not None:
                yield storage, phase


def activations(watch: StorageWatch | None) -> Iterator[tuple[Any, str, str]]:
    """Watched storages as leftovers for ``measure``: forward's are activations."""
    for storage, phase in watch.live() if watch is not None else ():
        if phase == "forward":
            yield storage, "saved for backward", "activations"
        else:
            yield storage, f"created in {phase}", "other"


def is_watchable() -> bool:
    """True if torch keeps storages' identities (needed to see when they die)."""
    tensor = torch.empty(1)
    return tensor.untyped_storage() is tensor.untyped_storage()
