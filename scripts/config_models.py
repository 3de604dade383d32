"""DeepSpeed's pydantic config models as rows of the key table."""

import types
import typing
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from deepspeed.runtime.config_utils import DeepSpeedConfigModel


def join(section: str, key: str) -> str:
    """Dotted path."""
    return f"{section}.{key}" if section else key


def plain(value: Any) -> Any:
    """``value`` as JSON holds it."""
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    if isinstance(value, bool) or value is None:
        return value
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return {key: plain(item) for key, item in dict(value).items()}


def describe(annotation: Any) -> dict[str, Any]:
    """A field's type as the table writes it."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        rest = [arg for arg in args if arg is not type(None)]
        nullable = {"nullable": True} if len(rest) < len(args) else {}
        if len(rest) == 1:
            return {**describe(rest[0]), **nullable}
        return {"type": "|".join(describe(arg)["type"] for arg in rest), **nullable}
    if origin is typing.Literal:
        return {"type": "str", "allowed": list(args)}
    if origin is list:
        item = describe(args[0])
        return {"type": "list", "items": item["type"], **pick(item, "allowed")}
    if origin is not None:
        return {"type": origin.__name__}
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        base = "int" if issubclass(annotation, int) else "str"
        return {"type": base, "allowed": sorted({plain(item) for item in annotation})}
    names = {Path: "path", object: "any", torch.dtype: "dtype"}
    return {"type": names.get(annotation, annotation.__name__)}


def pick(source: dict[str, Any], *names: str) -> dict[str, Any]:
    """The named entries that ``source`` has."""
    return {name: source[name] for name in names if name in source}


def model_in(annotation: Any) -> type[DeepSpeedConfigModel] | None:
    """The config model that a field holds, if it is a nested section."""
    for candidate in (annotation, *typing.get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, DeepSpeedConfigModel):
            return candidate
    return None


def model_rows(path: str, model: type[DeepSpeedConfigModel], table: dict[str, Any]) -> None:
    """Add a pydantic section and its fields to the table."""
    forbid = model.model_config.get("extra") == "forbid"
    section = {"parser": "pydantic", "unknown": "forbidden" if forbid else "ignored"}
    table["sections"][path] = {**section, "model": model.__name__}
    for name, field in model.model_fields.items():
        spelling = join(path, field.alias or name)
        inner = model_in(field.annotation)
        if inner is not None:
            model_rows(spelling, inner, table)
            table["sections"][spelling]["optional"] = field.get_default() is None and (
                field.default_factory is None
            )
            if field.alias:
                table["sections"][spelling]["field"] = name
            continue
        row = describe(field.annotation)
        row["default"] = plain(field.get_default(call_default_factory=True))
        if row["type"] == "float":  # defaults are validated too
            row["default"] = float(row["default"])
        if field.alias and field.alias != name:
            row["field"] = name
        for bound in field.metadata:
            row |= {k: plain(v) for k, v in vars_of(bound).items() if k in ("gt", "ge", "lt", "le")}
        extra = field.json_schema_extra or {}
        if extra.get("deprecated"):
            row["deprecated"] = True
            row |= {"replacement": extra["new_param"]} if extra.get("new_param") else {}
            row |= {} if extra.get("set_new_param", True) else {"replacement_set": False}
        table["keys"][spelling] = row


def vars_of(bound: Any) -> dict[str, Any]:
    """Attributes of an annotated-types bound (they use slots)."""
    return {name: getattr(bound, name) for name in ("gt", "ge", "lt", "le") if hasattr(bound, name)}
