"""Answers of the simulated device where a program reads values or pins memory.

No value is ever computed. Reads take the path of a healthy run: nothing overflows, tensors that
ranks compare are equal.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from zero_sizer.simulator import values
from zero_sizer.simulator.mode import Answer, SimulatedMode
from zero_sizer.simulator.tracker import PINNED

_SAID = "_simulated_value"


def table() -> dict[Any, Answer]:
    """Operator -> answer."""
    aten = torch.ops.aten
    return {
        aten._local_scalar_dense.default: _item,
        aten.equal.default: _yes,
        aten._pin_memory.default: _pin_memory,
        aten.is_pinned.default: _is_pinned,
        aten.all.default: _all,
        aten.isinf.default: _isinf,
        aten._amp_foreach_non_finite_check_and_unscale_.default: _unscale,
        aten.new_empty.default: _new_empty,
        **{operator: _Collective() for operator in _collectives()},
    }


def _collectives() -> list[Any]:
    """Collectives that return what they were given, and a handle."""
    c10d = torch.ops.c10d
    names = ("_allgather_base_", "_reduce_scatter_base_", "broadcast_", "allreduce_")
    return [getattr(c10d, name).default for name in names if hasattr(c10d, name)]


class _Collective:
    """A collective among silent peers: the fake group's first handle serves all later calls."""

    def __init__(self) -> None:
        self._handle: Any = None

    def __call__(
        self, mode: SimulatedMode, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        if self._handle is None:
            result = mode.ask(func, (), args, kwargs)
            self._handle = result[1]
            return result
        return args[0], self._handle


def _item(mode: SimulatedMode, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    tensor = args[0]
    if hasattr(tensor, "fake_mode"):
        known = values.of(tensor)
        if known is not None:
            return known.item()
    constant = getattr(tensor, "constant", None)
    if constant is not None:
        return constant.item()
    if not hasattr(tensor, "fake_mode"):
        return func(tensor)
    said = getattr(tensor, _SAID, None)
    if said is not None:
        return said
    return values.healthy(tensor)


def _place(tensor: Any) -> Any:
    return getattr(tensor, "_fake_device", tensor.device)


def _yes(mode: SimulatedMode, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    return True


def _isinf(mode: SimulatedMode, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """torch takes the magnitudes first (ATen/native/TensorCompare.cpp, ``isinf``)."""
    return args[0].abs() == float("inf")


def _unscale(mode: SimulatedMode, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """torch.amp.GradScaler asks for the second whether to leave the step out."""
    result = mode.ask(func, (), args, kwargs)
    setattr(args[1], _SAID, 0.0)
    return result


def _all(mode: SimulatedMode, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    result = mode.ask(func, (), args, kwargs)
    setattr(result, _SAID, True)
    return result


def _new_empty(
    mode: SimulatedMode, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Any:
    """Of a constant too: torch would make it where the constant lies, on no simulated device."""
    source, shape = args
    empty = torch.ops.aten.empty.memory_format
    given = {"dtype": source.dtype, "device": _place(source), **kwargs, "pin_memory": False}
    if kwargs.get("pin_memory"):
        return mode.ask(empty, (), (shape,), given, PINNED)
    return mode.remembered(empty, (shape,), given)


def _pin_memory(
    mode: SimulatedMode, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Any:
    source = args[0]
    return mode.make(source.shape, source.stride(), source.dtype, _place(source), PINNED)


def _is_pinned(
    mode: SimulatedMode, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> bool:
    tensor = args[0]
    return hasattr(tensor, "fake_mode") and mode.tracker.is_pinned(tensor.untyped_storage())
