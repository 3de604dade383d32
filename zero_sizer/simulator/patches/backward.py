"""An error in a hook of backward, which would end the process on a device written in Python.

torch's engine unwinds a C++ guard of the device's stream while the error is still Python's current
one; on this device the guard asks ``DeviceGuard.type_``, in Python, and a call under a current
error fails where nothing may (torch/csrc/acc/Module.cpp, ``exchangeStream ... noexcept``). So
``type_`` lays the error aside, and whoever called the engine gets it back.
"""

import ctypes
from typing import Any

import torch

_PARTS = [ctypes.c_void_p() for _ in range(3)]  # type, value, traceback
_REFERENCES = tuple(ctypes.byref(part) for part in _PARTS)
_ASIDE: list[tuple[int | None, ...]] = []


def device_guard() -> Any:
    """The guard of the simulated device, to be registered with it."""
    fetch = ctypes.PyDLL(None).PyErr_Fetch  # argtypes would be converted by Python code
    fetch.restype = None

    def type_(
        self: Any,
        fetch: Any = fetch,
        references: Any = _REFERENCES,
        first: Any = _PARTS[0],
        lay_aside: Any = _lay_aside,
        found: Any = torch._C._autograd.DeviceType.PrivateUse1,
    ) -> Any:
        """The device's type. Until ``fetch`` returns, nothing but local names may be read."""
        fetch(*references)
        if first.value is not None:
            lay_aside()
        return found

    return type("SimulatedGuard", (torch._C._acc.DeviceGuard,), {"type_": type_})()


def _lay_aside() -> None:
    _ASIDE.append(tuple(part.value for part in _PARTS))
    for part in _PARTS:
        part.value = None


class Engine:
    """torch's engine of backward, which raises what was laid aside.

    Args:
        engine: torch's.
    """

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def run_backward(self, *args: Any, **kwargs: Any) -> Any:
        """Backward, or the error that ended it."""
        before = len(_ASIDE)
        try:
            return self._engine.run_backward(*args, **kwargs)
        except SystemError:
            if len(_ASIDE) > before:
                _raise_again(_ASIDE.pop())
            raise


def _raise_again(parts: tuple[int | None, ...]) -> None:
    restore = ctypes.pythonapi.PyErr_Restore
    restore.restype, restore.argtypes = None, [ctypes.c_void_p] * 3
    restore(*parts)
