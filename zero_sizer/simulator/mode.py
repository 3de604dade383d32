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
from zero_sizer.simulator import device, handed_on, values
from zero_sizer.simulator.operators import selections
from zero_sizer.simulator.patches import questions
from zero_sizer.simulator.remembered import (
    IN_PLACE,
    KIND,
    VIEW,
    Operator,
    UnkeyableError,
    describe,
    recipe_of,
)
from zero_sizer.simulator.tracker import PINNED, Tracker

Answer = Callable[["SimulatedMode", Any, Sequence[Any], Mapping[str, Any]], Any]

_DEVICE = torch.ops.prim.device.default
_DETACH = torch.ops.aten.detach.default
_META = torch.device("meta")


def _is_on_gpu(tensor: Any) -> bool:
    return type(tensor) is FakeTensor and tensor._fake_device.type == device.NAME


def _on_its_device(kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Arguments of an operator, with ``cuda`` (what a script calls the rank's GPU) replaced."""
    where = kwargs.get("device")
    if where is None or where.type != "cuda":
        return kwargs
    return {**kwargs, "device": torch.device(device.NAME, 0)}


def _is_plain(tensor: Any) -> bool:
    return type(tensor) is FakeTensor and tensor.constant is None


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
        questions.without_rules(type(self))
        self.tracker = tracker
        self._answers = answers
        self._notes = notes if notes is not None else []
        self._results = handed_on.ANSWERS
        self._operators: dict[int, Operator] = {}  # by id: torch hashes an operator in Python
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
        if self._depth:  # inside a decomposition: torch's kernels make no such temporaries
            return super().__torch_dispatch__(func, types, args, kwargs or {})
        if func is _DEVICE:  # more than half of all questions: autograd asks several a node
            tensor = args[0]
            return _META if tensor.fake_mode.in_kernel_invocation else tensor._fake_device
        operator = self._operators.get(id(func)) or self._operator(func)
        kwargs = _on_its_device(kwargs) if kwargs else {}
        if operator.multiplies and _is_on_gpu(args[0]):
            # torch multiplies backward's matrices in the GPU's own thread
            in_backward = torch._C._current_graph_task_id() != -1
            self.tracker.multiplied("backward" if in_backward else "forward")
        if self.keeps_values:
            return self._followed(operator, types, args, kwargs)
        if operator.plain_view and _is_plain(args[0]):
            return self._view(func, args, kwargs)
        return self._answered(operator, types, args, kwargs)

    def _followed(
        self,
        operator: Operator,
        types: Sequence[type],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> Any:
        found = values.read(operator.func, args)
        if found is not None:
            return found
        result = self._answered(operator, types, args, kwargs)
        values.follow(operator.func, args, kwargs, result, self.keeps_values)
        return result

    def _answered(
        self,
        operator: Operator,
        types: Sequence[type],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> Any:
        answer = operator.answer or (_pinned if kwargs and kwargs.get("pin_memory") else None)
        if answer is not None:
            return answer(self, operator.func, args, kwargs)
        return self._remembered(operator, types, args, kwargs)

    def _remembered(
        self,
        operator: Operator,
        types: Sequence[type],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> Any:
        func = operator.func
        if operator.plain_view and _is_plain(args[0]):
            return self._view(func, args, kwargs)
        try:
            key = (
                torch.get_default_dtype(),
                tuple(map(describe, args)),
                tuple([(name, describe(value)) for name, value in kwargs.items()])
                if kwargs
                else (),
            )
            result = operator.results.get(key)
        except UnkeyableError:
            return self.ask(func, types, args, kwargs)
        if result is None:
            return self._learn(key, operator, types, args, kwargs)
        if result is IN_PLACE:
            return kwargs.get("out", args[0] if func._schema.returns else None)
        if result is VIEW:
            return self._view(func, args, kwargs)
        return self._replay(result)

    def remembered(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """The result of an operator that torch answers, asked once for arguments alike."""
        return self._remembered(self._operator(func), (), args, kwargs)

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
        known = selections.known_shape(func, args) if self.keeps_values else None
        shape = known or selections.largest_shape(func, args)
        if shape is None:
            raise UnsupportedError(
                f"{func}: how much it returns depends on values, and a simulated run has none",
                remedy="let the model mask by multiplying instead of selecting",
            ) from None
        if known is None and selections.NOTE not in self._notes:
            self._notes.append(selections.NOTE)
        source = args[0]
        dtype = torch.int64 if func is torch.ops.aten.nonzero.default else source.dtype
        strides = torch.empty(shape, device="meta").stride()
        return self.make(shape, strides, dtype, source._fake_device, None)

    def _like(self, real: Any, source: Any) -> Any:
        return self.make(real.shape, real.stride(), real.dtype, source._fake_device, None)

    def watch(self, tensor: Any, kind: str | None = None) -> None:
        """Counts a tensor's storage on its device, or as ``kind``."""
        kind = kind or KIND.get(tensor._fake_device.type)
        if kind is not None:
            self.tracker.watch(tensor.untyped_storage(), kind)

    def _operator(self, func: Any) -> Operator:
        operator = self._operators.get(id(func))
        if operator is None:
            results = self._results.setdefault(func, {})
            operator = Operator(func, self._answers.get(func), results)
            self._operators[id(func)] = operator
        return operator

    def _learn(
        self,
        key: Any,
        operator: Operator,
        types: Sequence[type],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> Any:
        func, results = operator.func, operator.results
        result = self.ask(func, types, args, kwargs)
        if operator.in_place:
            results[key] = IN_PLACE
        elif operator.view:
            results[key] = VIEW
        elif torch.Tag.dynamic_output_shape in func.tags:
            pass  # how much it returns depends on values
        elif not operator.resizes and not func._schema.is_mutable:
            recipe = recipe_of(result, args, kwargs)
            if recipe is not None:
                results[key] = recipe
        return result

    def _view(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        if func is _DETACH:
            return self.detached(args[0])
        with torch._C._DisableTorchDispatch():
            _include_meta(True)
            self.in_kernel_invocation = True
            try:
                result = func(*args, **kwargs)
            finally:
                self.in_kernel_invocation = False
                _include_meta(False)
        where = args[0]._fake_device
        if isinstance(result, torch.Tensor):
            return _fake(self, result, where)
        return [_fake(self, part, where) for part in result]

    def detached(self, tensor: Any) -> Any:
        """The tensor without its graph, on the same storage."""
        with torch._C._DisableTorchDispatch():
            return _fake(self, tensor, tensor._fake_device)

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
        tensor = torch.empty_strided(shape, stride, dtype=dtype, device=_META)
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
    tensor = _make_subclass(
        FakeTensor, elem, False, dispatch_device=True, device_for_backend_keys=where
    )
    tensor.__dict__.update(_NOTHING, _fake_device=where, fake_mode=mode)
    return tensor


_make_subclass = torch.Tensor._make_subclass
_include_meta = torch._C._set_meta_in_tls_dispatch_include
_NOTHING = dict.fromkeys(
    (
        *("constant", "pytype", "dispatch_keys", "real_tensor"),
        *("_nonzero_memo", "_item_memo", "_unique_memo", "_unique_consecutive_memo"),
        "_nested_int_memo",
    )
)
