"""How an operator is answered again: its schema, its arguments as a key, its result as a recipe."""

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor

from zero_sizer.simulator import device
from zero_sizer.simulator.tracker import GPU, HOST

KIND = {device.NAME: GPU, "cpu": HOST}
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


class Again(Enum):
    """How an operator is answered again that makes no storage."""

    IN_PLACE = "the argument that it changed"
    VIEW = "a view of its argument"


IN_PLACE, VIEW = Again.IN_PLACE, Again.VIEW
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


class UnkeyableError(Exception):
    """An argument that a cache key cannot describe."""


def describe(value: Any) -> Any:
    """An argument's part of a key: the metadata of a tensor, the value of anything else.

    Raises:
        UnkeyableError: it has none.
    """
    kind = type(value)
    if kind is FakeTensor:
        if value.constant is not None:
            raise UnkeyableError
        return value.shape, value.stride(), value.dtype, value._fake_device
    if kind is int or kind is bool or kind is str:
        return kind, value
    if kind is float:
        return float
    if kind in _PLAIN:
        return value
    if kind is list or kind is tuple:
        return tuple(map(describe, value))
    raise UnkeyableError


class Operator:
    """How an operator is answered: what its schema says about its results, and what is known.

    Attributes:
        func: the operator; kept, so that its ``id`` stays its own.
        answer: of the simulated device's own, or None.
        multiplies: cuBLAS computes it.
        plain_view: a view whose answers would rarely repeat, since offsets differ.
        results: what it returned, by the metadata of its arguments.
    """

    __slots__ = (
        "answer",
        "func",
        "in_place",
        "multiplies",
        "plain_view",
        "resizes",
        "results",
        "view",
    )

    def __init__(
        self, func: Any, answer: Callable[..., Any] | None, results: dict[Any, Any]
    ) -> None:
        self.func, self.answer, self.results = func, answer, results
        self.multiplies, self.plain_view = func in _PRODUCTS, func in _PLAIN_VIEWS
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


def recipe_of(result: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
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
        return VIEW if len(tensors) == 1 and isinstance(result, torch.Tensor) else None
    made = tuple(_metadata(part) if isinstance(part, torch.Tensor) else part for part in parts)
    if isinstance(result, torch.Tensor):
        return None, made[0]
    return (list if isinstance(result, list) else tuple), made


def _metadata(tensor: Any) -> tuple[Any, ...]:
    where = tensor._fake_device
    return tuple(tensor.shape), tensor.stride(), tensor.dtype, where, KIND.get(where.type)


def _tensors(values: Any) -> list[Any]:
    if isinstance(values, torch.Tensor):
        return [values]
    if isinstance(values, tuple | list):
        return [tensor for value in values for tensor in _tensors(value)]
    return []
