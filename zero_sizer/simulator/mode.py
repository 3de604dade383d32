"""Fake tensors on the simulated GPU, made fast, with every storage handed to the tracker.

torch's ``FakeTensorMode`` knows what each operator returns but takes some 0.2 ms to say so. The
same question comes back thousands of times in a training step, so its answers are remembered
here: by operator, and by the metadata of the arguments.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch._subclasses.fake_tensor import (
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
)
from torch.utils import _pytree as pytree

from zero_sizer.errors import UnsupportedError
from zero_sizer.simulator import device, values
from zero_sizer.simulator.operators import selections
from zero_sizer.simulator.tracker import GPU, HOST, PINNED, Tracker

Answer = Callable[["SimulatedMode", Any, Sequence[Any], Mapping[str, Any]], Any]

_KIND = {device.NAME: GPU, "cpu": HOST}
# Types that describe themselves in a cache key; int, bool and str carry their type along because
# 1, 1.0 and True are one key to a dict but not one question to torch.
_PLAIN = {
    torch.dtype,
    torch.device,
    torch.layout,
    torch.memory_format,
    type(None),
    torch.Size,
}
_IN_PLACE, _VIEW = object(), object()
_PRODUCTS = {  # what cuBLAS computes
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten.bmm.default,
    torch.ops.aten.baddbmm.default,
    torch.ops.aten.mv.default,
    torch.ops.aten.addmv.default,
    torch.ops.aten.dot.default,
}
_PLAIN_VIEWS = {
    torch.ops.aten.slice.Tensor,
    torch.ops.aten.select.int,
    torch.ops.aten.view.default,
    torch.ops.aten.detach.default,
    torch.ops.aten.t.default,
    torch.ops.aten.transpose.int,
    torch.ops.aten.unsqueeze.default,
    torch.ops.aten.expand.default,
}


class _UnkeyableError(Exception):
    """An argument that a cache key cannot describe."""


def _describe(value: Any) -> Any:
    kind = type(value)
    if kind is FakeTensor:
        if value.constant is not None:
            raise _UnkeyableError
        return value.shape, value.stride(), value.dtype, value._fake_device
    if kind is int or kind is bool or kind is str:
        return kind, value
    if kind is float:
        return float
    if kind in _PLAIN:
        return value
    if kind is list or kind is tuple:
        return tuple(map(_describe, value))
    raise _UnkeyableError


def _is_on_gpu(tensor: Any) -> bool:
    return type(tensor) is FakeTensor and tensor._fake_device.type == device.NAME


class _Operator:
    """What an operator's schema says about its results."""

    __slots__ = ("in_place", "resizes", "view")

    def __init__(self, func: Any) -> None:
        schema = func._schema
        returns = [result.alias_info for result in schema.returns]
        self.resizes = torch.Tag.inplace_view in func.tags or schema.name.startswith(
            ("aten::resize", "aten::set_", "aten::_resize")
        )
        self.view = not schema.is_mutable and any(returns)
        # A mutable operator returns its first argument (or ``out``), or nothing.
        self.in_place = (
            schema.is_mutable
            and not self.resizes
            and (not returns or (len(returns) == 1 and returns[0] is not None))
        )


class SimulatedMode(FakeTensorMode):  # type: ignore[misc]  # torch is not followed by mypy
    """Answers every operator with fake tensors and tells the tracker about their storages.

    Args:
        tracker: counts the storages.
        answers: operators answered here rather than by torch, such as reads of values.
        notes: receives what the reader must know, each once.

    Attributes:
        keeps_values: elements of the largest tensor whose values are kept where a script makes
            them (values.py); 0: none.
    """

    keeps_values = 0

    def __init__(
        self, tracker: Tracker, answers: Mapping[Any, Answer], notes: list[str] | None = None
    ) -> None:
        super().__init__(allow_non_fake_inputs=True)
        self.cache_enabled = False  # ours stands above it
        self.tracker = tracker
        self._answers = answers
        self._notes = notes if notes is not None else []
        self._results: dict[Any, Any] = {}
        self._operators: dict[Any, _Operator] = {}
        self._depth = 0

    def __deepcopy__(self, memo: object) -> "SimulatedMode":
        return self  # a tensor's copy is on the same device

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Otherwise torch wraps every dispatch in dynamo's context; nothing is compiled here.
        return False

    @property
    def is_asked(self) -> bool:
        """True if torch itself is at work, answering for an operator."""
        return self._depth > 0

    @property
    def avoid_device_init(self) -> bool:
        """Never touch a real device."""
        return True

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if self._depth:  # inside a decomposition: torch's kernels make no such temporaries
            return super().__torch_dispatch__(func, types, args, kwargs)
        where = kwargs.get("device")
        if where is not None and where.type == "cuda":  # what a script calls the rank's GPU
            kwargs = {**kwargs, "device": torch.device(device.NAME, 0)}
        if func in _PRODUCTS and _is_on_gpu(args[0]):
            # torch multiplies backward's matrices in the GPU's own thread
            in_backward = torch._C._current_graph_task_id() != -1
            self.tracker.multiplied("backward" if in_backward else "forward")
        if not self.keeps_values:
            return self._answered(func, types, args, kwargs)
        found = values.read(func, args)
        if found is not None:
            return found
        result = self._answered(func, types, args, kwargs)
        values.follow(func, args, kwargs, result, self.keeps_values)
        return result

    def _answered(
        self, func: Any, types: Sequence[type], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        answer = self._answers.get(func) or (_pinned if kwargs.get("pin_memory") else None)
        if answer is not None:
            return answer(self, func, args, kwargs)
        return self._remembered(func, types, args, kwargs)

    def _remembered(
        self, func: Any, types: Sequence[type], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        if func in _PLAIN_VIEWS and type(args[0]) is FakeTensor and args[0].constant is None:
            return self._view(func, args, kwargs)  # offsets differ, so answers would rarely repeat
        try:
            key = (
                func,
                torch.get_default_dtype(),
                tuple(map(_describe, args)),
                tuple([(name, _describe(value)) for name, value in kwargs.items()]),
            )
            result = self._results.get(key)
        except _UnkeyableError:
            return self.ask(func, types, args, kwargs)
        if result is None:
            return self._learn(key, func, types, args, kwargs)
        if result is _IN_PLACE:
            return kwargs.get("out", args[0] if func._schema.returns else None)
        if result is _VIEW:
            return self._view(func, args, kwargs)
        return self._replay(result)

    def ask(
        self,
        func: Any,
        types: Sequence[type] = (),
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        kind: str | None = None,
    ) -> Any:
        """The result according to torch's own fake mode, tracked (as ``kind``, where given)."""
        self._depth += 1
        try:
            result = super().__torch_dispatch__(func, types, args, kwargs or {})
        except DynamicOutputShapeException:
            result = self._selected(func, args)
        finally:
            self._depth -= 1
        self._track(result, kind)
        if self._operator(func).resizes and isinstance(args[0], FakeTensor):
            self.tracker.resized(args[0].untyped_storage())
        return result

    def _selected(self, func: Any, args: Sequence[Any]) -> Any:
        """A result whose size depends on values: at its largest, or refused."""
        exact = values.computed_shape(func, args) if self.keeps_values else None
        if exact is not None:
            return pytree.tree_map_only(torch.Tensor, lambda real: self._like(real, args[0]), exact)
        shape = selections.largest_shape(func, args)
        if shape is None:
            raise UnsupportedError(
                f"{func}: how much it returns depends on values, and a simulated run has none",
                remedy="let the model mask by multiplying instead of selecting",
            ) from None
        if selections.NOTE not in self._notes:
            self._notes.append(selections.NOTE)
        source = args[0]
        dtype = torch.int64 if func is torch.ops.aten.nonzero.default else source.dtype
        strides = torch.empty(shape, device="meta").stride()
        return self.make(shape, strides, dtype, source._fake_device, None)

    def _like(self, real: Any, source: Any) -> Any:
        return self.make(real.shape, real.stride(), real.dtype, source._fake_device, None)

    def watch(self, tensor: Any, kind: str | None = None) -> None:
        """Counts a tensor's storage on its device, or as ``kind``."""
        kind = kind or _KIND.get(tensor._fake_device.type)
        if kind is not None:
            self.tracker.watch(tensor.untyped_storage(), kind)

    def _operator(self, func: Any) -> _Operator:
        operator = self._operators.get(func)
        if operator is None:
            operator = self._operators[func] = _Operator(func)
        return operator

    def _learn(
        self,
        key: Any,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> Any:
        result = self.ask(func, types, args, kwargs)
        operator = self._operator(func)
        if operator.in_place:
            self._results[key] = _IN_PLACE
        elif operator.view:
            self._results[key] = _VIEW
        elif torch.Tag.dynamic_output_shape in func.tags:
            pass  # how much it returns depends on values
        elif not operator.resizes and not func._schema.is_mutable:
            recipe = _recipe(result, args, kwargs)
            if recipe is not None:
                self._results[key] = recipe
        return result

    def _view(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        with torch._C._DisableTorchDispatch(), torch._C._PreserveDispatchKeyGuard():
            torch._C._set_meta_in_tls_dispatch_include(True)
            self.in_kernel_invocation = True
            try:
                result = func(*args, **kwargs)
            finally:
                self.in_kernel_invocation = False
        where = args[0]._fake_device
        if isinstance(result, torch.Tensor):
            return _fake(self, result, where)
        return [_fake(self, part, where) for part in result]

    def _replay(self, recipe: Any) -> Any:
        kind, parts = recipe
        if kind is None:
            return self.make(*parts)
        return kind([self.make(*part) if type(part) is tuple else part for part in parts])

    def make(
        self,
        shape: Sequence[int],
        stride: Sequence[int],
        dtype: torch.dtype,
        where: torch.device,
        kind: str | None,
    ) -> Any:
        """A new tensor on device ``where``, counted as ``kind`` unless that is None."""
        tensor = torch.empty_strided(shape, stride, dtype=dtype, device="meta")
        tensor = _fake(self, tensor, where)
        if kind is not None:
            self.tracker.watch(tensor.untyped_storage(), kind)
        return tensor

    def _track(self, result: Any, kind: str | None) -> None:
        if isinstance(result, FakeTensor):
            self.watch(result, kind)
        elif isinstance(result, tuple | list):
            for part in result:
                self._track(part, kind)


def _pinned(mode: SimulatedMode, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    return mode.ask(func, (), args, {**kwargs, "pin_memory": False}, PINNED)


def _fake(mode: SimulatedMode, elem: torch.Tensor, where: torch.device) -> Any:
    """``FakeTensor(mode, elem, where)`` without its checks."""
    tensor = torch.Tensor._make_subclass(
        FakeTensor, elem, False, dispatch_device=True, device_for_backend_keys=where
    )
    state = tensor.__dict__
    state["_fake_device"] = where
    state["fake_mode"] = mode
    for name in ("constant", "pytype", "dispatch_keys", "real_tensor", *_MEMOS):
        state[name] = None
    return tensor


_MEMOS = (
    "_nonzero_memo",
    "_item_memo",
    "_unique_memo",
    "_unique_consecutive_memo",
    "_nested_int_memo",
)


def _recipe(result: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """How to make ``result`` again without torch, or None when it shares an argument's storage."""
    if not isinstance(result, tuple | list | torch.Tensor):
        return None  # a number or a device: no storage, and cheap to ask for
    parts = result if isinstance(result, tuple | list) else (result,)
    tensors = [part for part in parts if isinstance(part, torch.Tensor)]
    if any(type(tensor) is not FakeTensor or tensor.constant is not None for tensor in tensors):
        return None
    storages = {tensor.untyped_storage()._cdata for tensor in tensors}
    given = {arg.untyped_storage()._cdata for arg in _tensors((args, tuple(kwargs.values())))}
    if len(storages) != len(tensors) or storages & given:
        return _VIEW if len(tensors) == 1 and isinstance(result, torch.Tensor) else None
    made = tuple(_metadata(part) if isinstance(part, torch.Tensor) else part for part in parts)
    if isinstance(result, torch.Tensor):
        return None, made[0]
    return (list if isinstance(result, list) else tuple), made


def _metadata(tensor: Any) -> tuple[Any, ...]:
    where = tensor._fake_device
    return tuple(tensor.shape), tensor.stride(), tensor.dtype, where, _KIND.get(where.type)


def _tensors(values: Any) -> list[Any]:
    if isinstance(values, torch.Tensor):
        return [values]
    if isinstance(values, tuple | list):
        return [tensor for value in values for tensor in _tensors(value)]
    return []
