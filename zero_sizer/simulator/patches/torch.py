"""Replacements in torch for programs to move fake tensors between devices, and back."""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor

from zero_sizer.simulator import values
from zero_sizer.simulator.patches import backward, questions
from zero_sizer.simulator.undo import Patches


@contextmanager
def torch_patches() -> Iterator[Patches]:
    """Fake tensors that keep their identity when a module moves to another device."""
    patches = Patches()
    questions.install(patches)
    patches.set(FakeTensor, "data", property(_get_data, _set_data))
    patches.set(FakeTensor, "record_stream", lambda self, stream: None)
    patches.set(FakeTensor, "__deepcopy__", _deepcopy)
    patches.set(torch.nn.Module, "_apply", _apply)
    patches.set(torch, "tensor", _reading(torch.tensor))
    variable = torch.autograd.Variable
    patches.set(variable, "_execution_engine", backward.Engine(variable._execution_engine))
    # Other tensor classes than these get a loop over tensors, which holds other temporaries.
    for name in ("torch.optim.optimizer", "torch.utils._foreach_utils"):
        module = importlib.import_module(name)
        types = [*module._foreach_supported_types, FakeTensor]
        patches.set(module, "_foreach_supported_types", types)
    only_cpu = torch._C._only_lift_cpu_tensors()
    # Otherwise torch.tensor([...], device=<simulated>) would allocate on the real device.
    torch._C._set_only_lift_cpu_tensors(True)
    try:
        # One thread: a backward thread of its own would see neither modes nor module names.
        with torch.autograd.set_multithreading_enabled(False):
            yield patches
    finally:
        torch._C._set_only_lift_cpu_tensors(only_cpu)
        patches.undo()


def _reading(make: Callable[..., Any]) -> Callable[..., Any]:
    """``torch.tensor`` of a list that holds tensors: it reads them where no mode is asked."""

    @wraps(make)
    def tensor(data: Any, *args: Any, **kwargs: Any) -> Any:
        return make(_read(data) if isinstance(data, list | tuple) else data, *args, **kwargs)

    return tensor


def _read(data: Any) -> Any:
    if type(data) is FakeTensor:
        return data.item() if data.dim() == 0 else data
    if isinstance(data, list | tuple) and any(
        isinstance(v, list | tuple | FakeTensor) for v in data
    ):
        return [_read(value) for value in data]
    return data


_DATA = torch._C.TensorBase.data


def _get_data(tensor: Any) -> Any:
    return _DATA.__get__(tensor)


def _set_data(tensor: Any, value: Any) -> None:
    """``tensor.data = value``, across devices too.

    Optimizers and hooks hold the tensor object, so it must stay and only its content may change;
    torch refuses that between device types because real kernels would be mixed up.
    """
    if type(value) is FakeTensor and value._fake_device.type != tensor._fake_device.type:
        content = _DATA.__get__(value)  # no view that would keep the old content alive
        content.requires_grad_(tensor.requires_grad)
        torch._C._swap_tensor_impl(tensor, content)
        for name in ("_backward_hooks", "_post_accumulate_grad_hooks"):
            if getattr(tensor, name):  # torch's own hooks are of the content that went away
                setattr(tensor, name, getattr(tensor, name))
        tensor._fake_device, content._fake_device = content._fake_device, tensor._fake_device
        _empty(content)
    else:
        _DATA.__set__(tensor, value)
        if type(value) is FakeTensor:
            tensor._fake_device = value._fake_device
    if type(value) is FakeTensor:
        values.share(value, tensor)


def _empty(tensor: Any) -> None:
    """What a graph still calls the tensor keeps its shape and no memory, as after ``.data =``."""
    strides = (0,) * tensor.dim()
    mode, place = tensor.fake_mode, tensor._fake_device
    _DATA.__set__(tensor, mode.make(tensor.shape, strides, tensor.dtype, place, None))


def _deepcopy(tensor: Any, memo: dict[int, Any]) -> Any:
    """``copy.deepcopy`` of a tensor; torch would copy bytes that are not there."""
    if id(tensor) not in memo:
        with torch.no_grad():
            copied = tensor.detach().clone(memory_format=torch.preserve_format)
        if isinstance(tensor, torch.nn.Parameter):
            copied = torch.nn.Parameter(copied, tensor.requires_grad)
        else:
            copied.requires_grad_(tensor.requires_grad)
        memo[id(tensor)] = copied
    return memo[id(tensor)]


def _apply(module: torch.nn.Module, fn: Callable[[Any], Any], recurse: bool = True) -> Any:
    """``Module._apply`` that changes parameters in place, as it does for real tensors."""
    if recurse:
        for child in module.children():
            child._apply(fn)
    for parameter in module._parameters.values():
        if parameter is not None:
            with torch.no_grad():
                parameter.data = fn(parameter)
                if parameter.grad is not None:
                    parameter.grad.data = fn(parameter.grad)
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = fn(buffer)
    return module
