"""Bundled models: what transformers' own class has, stored once per kind of block."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from zero_sizer.models.spec import Architecture, ModelSpec, Tensor
from zero_sizer.units import DType
from zero_sizer.util.records import dataclass

_DATA = Path(__file__).parents[1] / "data"  # importlib.resources costs a check 30 ms
_PREFIX, _SUFFIX = "model.", ".json"


@dataclass(frozen=True, slots=True)
class ModuleRow:
    """One module of a model with the tensors that it owns itself.

    Attributes:
        name: qualified name; empty for the model.
        module_type: class name.
        parameters: name -> shape, or the qualified name of the tensor that it is tied to.
        frozen: names of the parameters that are not trained.
        buffers: name -> shape and the dtype that it keeps, None where it follows the model's.
    """

    name: str
    module_type: str
    parameters: Mapping[str, tuple[int, ...] | str]
    buffers: Mapping[str, tuple[tuple[int, ...], DType | None]]
    frozen: frozenset[str] = frozenset()


@cache
def bundled_names() -> tuple[str, ...]:
    """Names of the bundled models, sorted."""
    found = (entry.name for entry in _DATA.iterdir())
    return tuple(
        sorted(
            name.removeprefix(_PREFIX).removesuffix(_SUFFIX)
            for name in found
            if name.startswith(_PREFIX) and name.endswith(_SUFFIX)
        )
    )


def read_bundled(name: str) -> dict[str, Any]:
    """The stored fields of bundled model ``name``, as JSON."""
    text = (_DATA / f"{_PREFIX}{name}{_SUFFIX}").read_text(encoding="utf-8")
    stored: dict[str, Any] = json.loads(text)
    return stored


def module_rows(stored: Mapping[str, Any]) -> Iterator[ModuleRow]:
    """Every module of ``stored`` in ``named_modules()`` order: parents first, as registered."""
    for prefix, rows in _blocks(stored):
        for row in rows:
            yield replace(row, name=_join(prefix, row.name))


def _blocks(stored: Mapping[str, Any]) -> Iterator[tuple[str, list[ModuleRow]]]:
    """Prefix and rows of each block; a repeated one is parsed once."""
    for item in stored["modules"]:
        if isinstance(item, list):
            yield "", [_row(item)]
            continue
        rows = [_row(row) for row in item["modules"]]
        for index in range(item["first"], item["first"] + item["count"]):
            yield item["repeat"].replace("{i}", str(index)), rows


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix and name else prefix or name


def _shape(stored: Any) -> tuple[int, ...] | str:
    if isinstance(stored, str):
        return stored
    return tuple(stored["shape"] if isinstance(stored, dict) else stored)


def _row(item: list[Any]) -> ModuleRow:
    name, module_type, parameters, buffers = item + [{}] * (4 - len(item))
    return ModuleRow(
        name=name,
        module_type=module_type,
        parameters={k: _shape(v) for k, v in parameters.items()},
        frozen=frozenset(k for k, v in parameters.items() if isinstance(v, dict)),
        buffers={
            k: (tuple(v["shape"]), DType(v["dtype"]) if "dtype" in v else None)
            for k, v in buffers.items()
        },
    )


@lru_cache(maxsize=64)  # as many as profiles are kept of, by the very spec
def load_bundled(name: str) -> ModelSpec:
    """The bundled model ``name``, one object however often it is asked for.

    No import beyond the standard library.
    """
    stored = read_bundled(name)
    parameters, buffers, shared = tensors_of(stored)
    return ModelSpec(
        name=name,
        origin=f"bundled model {name} ({stored['source']})",
        parameters=parameters,
        buffers=buffers,
        arch=Architecture(**stored["arch"]),
        hf_config=stored["hf_config"],
        shared=shared,
    )


def tensors_of(
    stored: Mapping[str, Any],
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], dict[str, str]]:
    """Parameters, buffers, and modules that run with another's parameter, of stored modules."""
    parameters: list[Tensor] = []
    buffers: list[Tensor] = []
    shared: dict[str, str] = {}
    for prefix, rows in _blocks(stored):
        for row in rows:
            start = _join(prefix, row.name) + "." if prefix or row.name else ""
            for key, shape in row.parameters.items():
                if isinstance(shape, str):
                    shared.setdefault(start.removesuffix("."), shape)
                else:
                    trains = key not in row.frozen
                    parameters.append(Tensor(start + key, shape, None, trains, row.module_type))
            for key, (shape, dtype) in row.buffers.items():
                buffers.append(Tensor(start + key, shape, dtype, False, row.module_type))
    return tuple(parameters), tuple(buffers), shared
