"""``dataclass``, a tenth of the standard one's time to define a class.

On Python 3.11 the standard decorator compiles six functions for each frozen class, one by one: a
third of a cold ``check``, for eighty classes. This one compiles ``__init__``, when the first
instance is made, and shares the rest; fields, ``replace`` and ``asdict`` are the standard
library's, and so is what a type checker sees.
"""

import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, FrozenInstanceError
from operator import attrgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(
        cls: type | None = None, /, *, frozen: bool = False, kw_only: bool = False, **options: Any
    ) -> Any:
        """Makes a class of annotated fields, as ``dataclasses.dataclass`` does; not ordered."""

        def make(of: type) -> type:
            if not of.__doc__:
                of.__doc__ = of.__name__  # the standard one would take the signature's text
            options.update(init=False, repr=False, eq=False, kw_only=kw_only)
            return _with_methods(dataclasses.dataclass(**options)(of), frozen=frozen)

        return make if cls is None else make(cls)


def _with_methods(cls: Any, *, frozen: bool) -> type:
    fields = dataclasses.fields(cls)
    compared = [field.name for field in fields if field.compare]
    cls.__signature__ = _Signature(fields)
    cls._compared = staticmethod(attrgetter(*compared) if compared else _nothing)
    methods: dict[str, Callable[..., Any] | None] = {
        "__init__": _compiled_when_called(cls, fields),
        "__repr__": _repr,
        "__eq__": _eq,
        "__hash__": _hash if frozen else None,
    }
    if frozen:
        methods.update(__setattr__=_setattr, __delattr__=_delattr)
        methods.update(__getstate__=_getstate, __setstate__=_setstate)
    for name, method in methods.items():
        if cls.__dict__.get(name) is None:  # defining __eq__ alone sets __hash__ to None
            setattr(cls, name, method)
    return cls  # type: ignore[no-any-return]


def _nothing(of: Any) -> tuple[()]:
    return ()


class _Signature:
    """Signature of a class whose ``__init__`` may not be compiled yet, for ``inspect``."""

    def __init__(self, fields: tuple[Field[Any], ...]) -> None:
        self._fields = fields

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        signature = inspect.signature(_init(self._fields, calls_after=False))
        return signature.replace(parameters=[*signature.parameters.values()][1:])


def _compiled_when_called(cls: Any, fields: tuple[Field[Any], ...]) -> Callable[..., None]:
    def first(self: Any, /, *args: Any, **kwargs: Any) -> None:
        made = _init(fields, calls_after=hasattr(cls, "__post_init__"))
        if cls.__dict__["__init__"] is first:
            cls.__init__ = made
        made(self, *args, **kwargs)

    return first


def _init(fields: tuple[Field[Any], ...], *, calls_after: bool) -> Callable[..., None]:
    known: dict[str, Any] = {"_set": object.__setattr__, "_MISSING": MISSING}
    positional, keywords, body = ["self"], list[str](), list[str]()
    for field in fields:
        name, argument, value = field.name, field.name, field.name
        if field.default_factory is not MISSING:
            known[f"_make_{name}"] = field.default_factory
            argument, value = (
                f"{name}=_MISSING",
                f"_make_{name}() if {name} is _MISSING else {name}",
            )
        elif field.default is not MISSING:
            known[f"_default_{name}"] = field.default
            argument = f"{name}=_default_{name}"
        if field.init:
            (keywords if field.kw_only else positional).append(argument)
            body.append(f" _set(self, {name!r}, {value})")
        elif field.default_factory is not MISSING:
            body.append(f" _set(self, {name!r}, _make_{name}())")
    if keywords:
        positional += ["*", *keywords]
    if calls_after:
        body.append(" self.__post_init__()")
    # field names are identifiers that a class body held: nothing else gets into the text
    exec(f"def __init__({', '.join(positional)}):\n" + "\n".join(body or [" pass"]), known)  # noqa: S102
    return known["__init__"]  # type: ignore[no-any-return]


def _repr(self: Any) -> str:
    shown = (f"{f.name}={getattr(self, f.name)!r}" for f in dataclasses.fields(self) if f.repr)
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _eq(self: Any, other: Any) -> Any:
    if other.__class__ is not self.__class__:
        return NotImplemented
    return self._compared(self) == self._compared(other)


def _hash(self: Any) -> int:
    return hash(self._compared(self))


def _setattr(self: Any, name: str, value: Any) -> None:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _delattr(self: Any, name: str) -> None:
    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _getstate(self: Any) -> dict[str, Any]:
    return {
        **getattr(self, "__dict__", {}),
        **{f.name: getattr(self, f.name) for f in dataclasses.fields(self)},
    }


def _setstate(self: Any, state: dict[str, Any]) -> None:
    for name, value in state.items():
        object.__setattr__(self, name, value)
