"""A GPU that does not exist: a device type in pure Python, so that any torch build can have one.

torch lets a process register its spare device type (PrivateUse1) once and for good; that is why a
simulation runs in a process of its own.
"""

from typing import Any

from zero_sizer.errors import UnsupportedError

NAME = "simgpu"


class _MissingError(UnsupportedError, AttributeError):
    """``hasattr`` says no; whoever insists gets a reason."""


class _BackendModule:
    """What torch asks of ``torch.<device>``. The rank has one device, number 0."""

    local_world_size = 1

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return True

    def current_device(self) -> int:
        return 0

    def set_device(self, device: object) -> None:
        """One rank, one device: nothing to choose."""

    def device_count(self) -> int:
        return self.local_world_size

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        """Values are never computed, so seeds have nothing to seed."""

    manual_seed = manual_seed_all

    def synchronize(self, device: object = None) -> None:
        """Everything has already happened."""

    def empty_cache(self) -> None:
        """DeepSpeed and transformers empty the cache through the accelerator."""

    def get_rng_state(self, device: object = None) -> Any:
        import torch

        return torch.empty(0, dtype=torch.uint8)

    def set_rng_state(self, state: object, device: object = None) -> None:
        """No random numbers are drawn."""

    def get_amp_supported_dtype(self) -> list[Any]:
        import torch

        return [torch.float16, torch.bfloat16]

    def __getattr__(self, name: str) -> Any:
        raise _MissingError(
            f"torch.{NAME}.{name}: this device has no such thing (offloading activations through "
            "streams of one's own, say, is not simulated)"
        )


_module = _BackendModule()
_registered = False


def holds(tensor: Any) -> bool:
    """True if a tensor lies on the simulated GPU, whatever it says to a script."""
    return bool(getattr(tensor, "_fake_device", tensor.device).type == NAME)


def register(*, local_world_size: int) -> None:
    """Makes ``torch.device("simgpu", 0)`` valid in this process, once and for good."""
    global _registered
    _module.local_world_size = local_world_size
    if _registered:
        return
    import torch
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    from zero_sizer.simulator.patches.backward import device_guard

    hook = type("SimulatedHook", (torch._C._acc.PrivateUse1Hooks,), _HOOK)()
    _setup_privateuseone_for_python_backend(
        NAME, backend_module=_module, hook=hook, device_guard=device_guard()
    )
    _registered = True


_HOOK = {
    "is_available": lambda self: True,
    "has_primary_context": lambda self, device: True,
    "is_built": lambda self: True,
}


NO_LIMIT = 2**60  # memory of a GPU that nobody named
