"""Small values that a script itself made: flags, counts, lengths, thresholds.

They are computed beside the fake tensors, on the host, for as long as nothing unknown flows in, so
that what a script reads back is what it wrote. Everything else has no value; a scalar without one
counts as a healthy run's wherever it is compared.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import _disable_current_modes

MOST_ELEMENTS = 4096
_KNOWN = "_known_value"
_aten = torch.ops.aten
_FACTORIES = {
    *(_aten.full, _aten.zeros, _aten.ones, _aten.arange, _aten.scalar_tensor, _aten.eye),
    _aten.linspace,
}
_COMPARISONS = {
    *(_aten.eq, _aten.ne, _aten.lt, _aten.le, _aten.gt, _aten.ge, _aten.isnan, _aten.isinf),
    *(_aten.logical_and, _aten.logical_or, _aten.logical_not, _aten.bitwise_not),
    *(_aten.bitwise_and, _aten.bitwise_or),
}
_LOOK_UP = _aten.embedding.default
_READS = {_aten.equal.default, _aten.is_nonzero.default}
_SAME_EVERYWHERE = ("allreduce_", "broadcast_")  # collectives that leave equal peers' values


class _Known:
    """A value, and whether it still holds; views of one tensor share the answer."""

    __slots__ = ("holds", "tensor")

    def __init__(self, tensor: Any, holds: list[bool]) -> None:
        self.tensor = tensor
        self.holds = holds


def of(tensor: Any) -> Any:
    """The real tensor behind a fake one whose value is known, or None."""
    known = tensor.__dict__.get(_KNOWN)
    return known.tensor if known is not None and known.holds[0] else None


def share(source: Any, target: Any) -> None:
    """``target`` holds what ``source`` holds from now on."""
    target.__dict__[_KNOWN] = source.__dict__.get(_KNOWN)


def forget(tensor: Any) -> None:
    """Something unknown was written into ``tensor``, and so into its views."""
    known = tensor.__dict__.get(_KNOWN)
    if known is not None:
        known.holds[0] = False


def keep(tensor: Any, value: Any) -> None:
    """``tensor`` is known to hold ``value``, a real tensor of the same shape, if it is small."""
    if value.numel() <= MOST_ELEMENTS:
        hold(tensor, value)


def hold(tensor: Any, value: Any) -> None:
    """``tensor`` is known to hold ``value``, whatever its size; so are small results of it."""
    tensor.__dict__[_KNOWN] = _Known(value, [True])


def healthy(tensor: Any) -> bool | int | float:
    """Value that an unknown scalar counts as."""
    if tensor.dtype == torch.bool:
        return False
    if tensor.is_floating_point():
        return 1.0
    # uint8 and int8 carry DeepSpeed's overflow flags, wider integers carry counts.
    return 0 if tensor.dtype.itemsize == 1 else 1


def read(func: Any, args: Sequence[Any]) -> Any:
    """The answer of an operator that returns no tensor, from known values; None without them."""
    if func is _LOOK_UP:
        _require_rows(*args[:2])
    if func not in _READS:
        return None
    found = [of(arg) if type(arg) is FakeTensor else arg for arg in args]
    return None if any(value is None for value in found) else _compute(func, found, {})


def _require_rows(table: Any, rows: Any) -> None:
    """As torch's kernel: a position beyond a table of positions is no row of it."""
    found = _value(rows)
    if found is None or not found.numel():
        return
    least, most = int(found.min()), int(found.max())
    if least < 0 or most >= table.shape[0]:
        row = least if least < 0 else most
        raise IndexError(
            f"index out of range in self: row {row:,} of an embedding of {table.shape[0]:,} rows "
            "(of positions, where a sequence is too long)"
        )


def follow(
    func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any, most: int
) -> None:
    """Notes what ``result`` holds, and forgets what ``func`` has overwritten.

    Args:
        func: the operator.
        args: its arguments.
        kwargs: more of them.
        result: what it returned.
        most: elements of the largest result that is computed.
    """
    tensors = list(_tensors(args)) if args else []
    if kwargs:
        tensors += _tensors(tuple(kwargs.values()))
    if not tensors:
        if func.overloadpacket in _FACTORIES and _is_small(result, most):
            _note(func, result, _compute(func, args, {**kwargs, "device": "cpu"}), tensors)
        return
    if func.namespace == "c10d":
        if func._schema.name.partition("::")[2] not in _SAME_EVERYWHERE:
            _forget_all(tensors)
        return
    known = [value is not None for value in map(_value, tensors)]
    if _follows(func, result, tensors, all(known), most):
        _note(func, result, _computed(func, args, kwargs), tensors)
    elif any(known) and func._schema.is_mutable:
        _forget_written(func, args, kwargs)


def _follows(func: Any, result: Any, tensors: Sequence[Any], all_known: bool, most: int) -> bool:
    """Whether the result has a value: all before it had, or a scalar is compared."""
    if all_known and _is_small(result, most) and _is_computed(func):
        return True
    return func.overloadpacket in _COMPARISONS and _is_scalar(result, tensors)


def computed_shape(func: Any, args: Sequence[Any]) -> Any:
    """The real result of an operator whose size depends on values, where all are known."""
    tensors = list(_tensors(args))
    if not tensors or any(_value(tensor) is None for tensor in tensors):
        return None
    return _computed(func, args, {})


def _tensors(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _value(tensor: Any) -> Any:
    return of(tensor) if type(tensor) is FakeTensor else tensor


def _is_computed(func: Any) -> bool:
    """Whether its result follows from its arguments alone."""
    name = func._schema.name.partition("::")[2]
    return torch.Tag.nondeterministic_seeded not in func.tags and not name.startswith(
        ("empty", "new_empty", "resize", "set_", "_resize")
    )


def _is_small(result: Any, most: int) -> bool:
    found = list(_tensors((result,)))
    return bool(found) and all(
        type(tensor) is FakeTensor and tensor.numel() <= most for tensor in found
    )


def _is_scalar(result: Any, tensors: Sequence[Any]) -> bool:
    return type(result) is FakeTensor and result.dim() == 0 and all(t.dim() == 0 for t in tensors)


def _computed(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    def real(value: Any) -> Any:
        if type(value) is not FakeTensor:
            return value
        found = of(value)
        if found is None:
            with _disable_current_modes():
                return torch.tensor(healthy(value), dtype=value.dtype)
        return found

    host = torch.device("cpu")
    given = pytree.tree_map_only(torch.Tensor, real, tuple(args))
    named = pytree.tree_map_only(torch.Tensor, real, dict(kwargs))
    if named.get("device") is not None:
        named["device"] = host
    given = tuple(host if isinstance(value, torch.device) else value for value in given)
    return _compute(func, given, named)


def _compute(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    kwargs = {name: value for name, value in kwargs.items() if name != "pin_memory"}
    try:
        with _disable_current_modes(), torch.no_grad():
            return func(*args, **kwargs)
    except (RuntimeError, NotImplementedError, TypeError, ValueError, IndexError):
        return None  # no such kernel on the host: the value stays unknown


def _note(func: Any, result: Any, value: Any, tensors: Sequence[Any]) -> None:
    if value is None:
        if func._schema.is_mutable:
            _forget_all(tensors)
        return
    is_view = not func._schema.is_mutable and any(r.alias_info for r in func._schema.returns)
    source = next((t.__dict__.get(_KNOWN) for t in tensors if type(t) is FakeTensor), None)
    holds = source.holds if is_view and source is not None else [True]
    for fake, real in zip(_tensors((result,)), _tensors((value,)), strict=True):
        if not any(fake is tensor for tensor in tensors):  # written in place: noted already
            fake.__dict__[_KNOWN] = _Known(real, holds)


def _forget_all(tensors: Sequence[Any]) -> None:
    for tensor in tensors:
        if type(tensor) is FakeTensor:
            forget(tensor)


def _forget_written(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    for place, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[place] if place < len(args) else kwargs.get(argument.name)
            _forget_all(list(_tensors((value,))))
