"""Tensors of a script that says ``cuda``: moved to the simulated GPU, and read without values."""

from collections.abc import Callable
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import _disable_current_modes

from zero_sizer.simulator import device, values
from zero_sizer.simulator.undo import Patches

_LEGACY = {  # torch.cuda.FloatTensor and the like
    "FloatTensor": torch.float32,
    "DoubleTensor": torch.float64,
    "HalfTensor": torch.float16,
    "BFloat16Tensor": torch.bfloat16,
    "LongTensor": torch.int64,
    "IntTensor": torch.int32,
    "ByteTensor": torch.uint8,
    "BoolTensor": torch.bool,
}


def install(patches: Patches, accelerator: Any) -> None:
    """``cuda`` means the simulated GPU wherever torch takes a device or tells one."""
    on_gpu = property(lambda tensor: tensor._fake_device.type == device.NAME)
    patches.set(FakeTensor, "is_cuda", on_gpu)
    patches.set(FakeTensor, "device", property(_device_of(FakeTensor.device.fget)))
    patches.set(FakeTensor, "__new__", staticmethod(_new(FakeTensor.__new__)))
    patches.set(FakeTensor, "__format__", _format)
    patches.set(FakeTensor, "numpy", _numpy)
    patches.set(FakeTensor, "type", _type)
    for name in ("device_name", "current_device_name"):
        patches.set(accelerator, name, _named(getattr(accelerator, name)))
    for owner in (torch.Tensor, torch.nn.Module):
        patches.set(owner, "cuda", _to_gpu)
    patches.set(torch.Tensor, "to", _to)
    patches.set(torch, "Generator", _Generator)
    for name, dtype in _LEGACY.items():
        patches.set(torch.cuda, name, _maker(dtype))
    autocast = torch.amp.autocast_mode.autocast
    patches.set(autocast, "__init__", _renaming_first(autocast.__init__, 1))
    for name in ("is_autocast_enabled", "get_autocast_dtype"):
        patches.set(torch, name, _renaming_first(getattr(torch, name), 0))


def _device_of(true_device: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """What ``tensor.device`` tells a script; torch's own questions get the true answer."""
    cuda = torch.device("cuda", 0)

    def device_of(tensor: Any) -> Any:
        where = true_device(tensor)
        inside = getattr(tensor.fake_mode, "is_asked", False)
        return cuda if where.type == device.NAME and not inside else where

    return device_of


def _named(original: Callable[..., str]) -> Callable[..., str]:
    """DeepSpeed's accelerator is ``cuda`` too."""
    return lambda *args: original(*args).replace(device.NAME, "cuda")


def _new(original: Callable[..., Any]) -> Callable[..., Any]:
    """``type(parameter)(data, requires_grad=...)`` makes a parameter, as torch's own class does."""

    def new(cls: Any, data: Any = None, *args: Any, **kwargs: Any) -> Any:
        if isinstance(data, torch.Tensor) and not args:  # else a mode and its tensor
            return torch.nn.Parameter(data, kwargs.get("requires_grad", True))
        return original(cls, data, *args, **kwargs)

    return new


def _format(tensor: Any, spec: str) -> str:
    """``f"{loss:.4f}"``: of its number, as torch does for a scalar."""
    return format(tensor.item(), spec) if tensor.dim() == 0 else object.__format__(tensor, spec)


def _type(tensor: Any, dtype: Any = None, *args: Any, **kwargs: Any) -> Any:
    """``tensor.type()`` names the class of a CUDA tensor."""
    if dtype is None:
        return str(_TYPE(tensor)).replace(f"torch.{device.NAME}.", "torch.cuda.")
    legacy = str(dtype).removeprefix("torch.cuda.")
    if isinstance(dtype, str) and legacy in _LEGACY:
        return tensor.to(device=torch.device(device.NAME, 0), dtype=_LEGACY[legacy])
    return _TYPE(tensor, dtype, *args, **kwargs)


_TYPE = torch._C.TensorBase.type


def _to_gpu(thing: Any, *args: object, **kwargs: object) -> Any:
    return thing.to(torch.device(device.NAME, 0))


_TO = torch._C.TensorBase.to


def _to(tensor: Any, *args: Any, **kwargs: Any) -> Any:
    """``Tensor.to``: torch asks a CUDA guard for the device before any mode sees the call."""
    args = tuple(map(_renamed, args))
    return _TO(tensor, *args, **{name: _renamed(value) for name, value in kwargs.items()})


def _renamed(value: Any) -> Any:
    if isinstance(value, str) and value.split(":")[0] == "cuda":
        return torch.device(device.NAME, 0)
    if isinstance(value, torch.device) and value.type == "cuda":
        return torch.device(device.NAME, 0)
    return value


def _renaming_first(original: Any, position: int) -> Callable[..., Any]:
    """``original`` with the device type at ``position`` (or by name) renamed."""

    def call(*args: Any, **kwargs: Any) -> Any:
        if kwargs.get("device_type") == "cuda":
            kwargs["device_type"] = device.NAME
        elif len(args) > position and args[position] == "cuda":
            args = (*args[:position], device.NAME, *args[position + 1 :])
        return original(*args, **kwargs)

    return call


def _numpy(tensor: Any, *, force: bool = False) -> Any:
    """Zeros, however many, where a simulated tensor has no values."""
    with _disable_current_modes():
        known = values.of(tensor)
        if known is not None:
            return known.clone().numpy()
        return torch.zeros((), dtype=tensor.dtype).expand(tensor.shape).numpy()


class _AnyGenerator(type(torch._C.Generator)):  # type: ignore[misc]
    """Generators that torch made are generators too."""

    def __instancecheck__(cls, thing: object) -> bool:
        return isinstance(thing, torch._C.Generator)


class _Generator(torch._C.Generator, metaclass=_AnyGenerator):  # type: ignore[misc]
    """A generator of the host whatever device it is asked for: no random numbers are drawn."""

    def __new__(cls, device: object = "cpu") -> "_Generator":
        made: _Generator = super().__new__(cls, "cpu")
        return made

    def set_state(self, state: Any) -> Any:
        """Ranks agree on a state by sending it around; what arrives has no values."""
        return self if isinstance(state, FakeTensor) else super().set_state(state)


def _maker(dtype: Any) -> Callable[..., Any]:
    def make(*args: Any) -> Any:
        where = torch.device(device.NAME, 0)
        if len(args) == 1 and not isinstance(args[0], int):
            return torch.tensor(args[0], dtype=dtype, device=where)
        return torch.empty(*args, dtype=dtype, device=where)

    return make
