"""torch.autocast on the simulated GPU: the casts that torch makes on a CUDA device.

torch knows autocast only for its own devices; without these registrations an operator under
``torch.autocast("simgpu")`` has no kernel. Which operator casts how is read from the header that
torch installs, ``ATen/autocast_mode.h``, so that it is the installed version's answer.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from zero_sizer.errors import UnsupportedError
from zero_sizer.simulator import device
from zero_sizer.simulator.undo import Patches

_KEY = "AutocastPrivateUse1"
_16_BIT = (torch.float16, torch.bfloat16)


class _Casts:
    """Casts of weights, kept until the outermost autocast region ends, as torch keeps them."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[Any, Any]] = {}

    def clear(self) -> None:
        self._kept.clear()

    def to(self, tensor: Any, dtype: torch.dtype) -> Any:
        if not _is_eligible(tensor) or tensor.dtype == dtype:
            return tensor
        keep = (
            torch.is_autocast_cache_enabled()
            and dtype in _16_BIT
            and tensor.dtype == torch.float32
            and tensor.requires_grad
            and tensor.is_leaf
            and tensor._base is None
        )
        if not keep:
            return tensor.to(dtype)
        if id(tensor) not in self._kept:
            self._kept[id(tensor)] = (tensor, tensor.to(dtype))
        return self._kept[id(tensor)][1]


def _is_eligible(value: Any) -> bool:
    return (
        isinstance(value, torch.Tensor)
        and value.is_floating_point()
        and value.dtype != torch.float64
        and device.holds(value)
    )


def _map(cast: Callable[[Any], Any], value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return cast(value)
    if isinstance(value, list | tuple):
        return type(value)(_map(cast, item) for item in value)
    return value


def _lower(casts: _Casts, args: Any, kwargs: Any) -> tuple[Any, Any]:
    dtype = torch.get_autocast_dtype(device.NAME)
    return _map(lambda t: casts.to(t, dtype), args), {
        name: _map(lambda t: casts.to(t, dtype), value) for name, value in kwargs.items()
    }


def _raise(casts: _Casts, args: Any, kwargs: Any) -> tuple[Any, Any]:
    return _map(lambda t: casts.to(t, torch.float32), args), kwargs


def _set_dtype(casts: _Casts, args: Any, kwargs: Any) -> tuple[Any, Any]:
    while args[-1] is None:  # a dtype that was not given, by position
        args = args[:-1]
    given = [*args, kwargs.get("dtype")]
    if not any(isinstance(value, torch.dtype) for value in given) and (
        _is_eligible(args[0]) and args[0].dtype in _16_BIT
    ):
        kwargs = {**kwargs, "dtype": torch.float32}
    return args, kwargs


def _promote(casts: _Casts, args: Any, kwargs: Any) -> tuple[Any, Any]:
    widest = torch.get_autocast_dtype(device.NAME)
    for value in args:
        if _is_eligible(value) and value.dtype == torch.float32:
            widest = torch.float32
    return _map(lambda t: casts.to(t, widest), args), kwargs


_RULES = {
    "AT_FORALL_LOWER_PRECISION_FP": _lower,
    "AT_FORALL_FP32": _raise,
    "AT_FORALL_FP32_SET_OPT_DTYPE": _set_dtype,
    "AT_FORALL_PROMOTE": _promote,
}
_ENTRY = re.compile(r"_\((\w+)(?:, *(\w+))?\)")


def listed(macro: str) -> tuple[str, ...]:
    """Operators of one of torch's autocast lists, as ``name`` or ``name.overload``.

    Raises:
        UnsupportedError: this torch installs no header, or one without the list.
    """
    header = Path(torch.__file__).parent / "include" / "ATen" / "autocast_mode.h"
    text = header.read_text(encoding="utf-8") if header.exists() else ""
    found = re.search(rf"#define {macro}\(_\)((?:.*\\\n)*.*)", text)
    if found is None:
        raise UnsupportedError(f"this torch does not install {header.name} with {macro}")
    entries = _ENTRY.findall(found.group(1))
    return tuple(f"{name}.{overload}" if overload else name for name, overload in entries)


@contextmanager
def registered() -> Iterator[None]:
    """Autocast kernels for the simulated GPU, removed on exit."""
    casts, patches = _Casts(), Patches()
    everything = torch.library.Library("_", "IMPL", _KEY)
    everything.fallback(torch.library.fallthrough_kernel, _KEY)
    aten = torch.library.Library("aten", "IMPL", _KEY)
    for macro, rule in _RULES.items():
        for name in listed(macro):
            _register(aten, name, rule, casts)
    clear = torch.clear_autocast_cache

    def clear_both() -> None:
        casts.clear()
        clear()

    patches.set(torch, "clear_autocast_cache", clear_both)
    try:
        yield
    finally:
        patches.undo()
        aten._destroy()
        everything._destroy()


def _register(library: Any, name: str, rule: Callable[..., Any], casts: _Casts) -> None:
    packet_name, _, overload = name.partition(".")
    packet = getattr(torch.ops.aten, packet_name, None)
    if packet is None or (overload or "default") not in packet.overloads():
        return
    operator = getattr(packet, overload or "default")

    def kernel(*args: Any, **kwargs: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(_KEY_ENUM)):
            args, kwargs = rule(casts, args, kwargs)
            return operator(*args, **kwargs)

    library.impl(name, kernel)


_KEY_ENUM = getattr(torch._C.DispatchKey, _KEY)
