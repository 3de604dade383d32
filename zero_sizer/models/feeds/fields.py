"""Fields of a config.json that inputs are derived from: whole numbers, and nested configs."""

from collections.abc import Mapping
from typing import Any


def whole(fields: Mapping[str, Any], *names: str, default: int = 0) -> int:
    """The first of these fields that is a whole number above 0."""
    for name in names:
        value = fields.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return default


def square(fields: Mapping[str, Any], name: str, default: int = 0) -> tuple[int, int]:
    """(height, width) of a field that is one number or two."""
    value = fields.get(name)
    if (
        isinstance(value, list | tuple)
        and len(value) == 2
        and all(isinstance(v, int) for v in value)
    ):
        return value[0], value[1]
    size = whole(fields, name, default=default)
    return size, size


def nested(fields: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """The first of these fields that is a config itself; else an empty one."""
    found = (said_in(fields, name) for name in names)
    return next((config for config in found if config is not None), {})


def said_in(fields: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    """The config that a field is; of older files of CLIP that which replaces all of its fields.

    transformers 5.23 clip/configuration_clip.py, ``CLIPConfig.__post_init__``.
    """
    found = (fields.get(key) for key in (f"{name}_dict", name))
    return next((config for config in found if isinstance(config, Mapping)), None)
