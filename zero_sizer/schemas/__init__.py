"""JSON Schemas of every JSON answer, as data."""

import json
import os
from typing import Any

_FILE = os.path.join(os.path.dirname(__file__), "data", "answers.json")
_REFERENCE = "#/$defs/"
DRAFT = "https://json-schema.org/draft/2020-12/schema"
VERSION = 1
"""Version of all of them: ``schema_version`` of an answer."""


def _stored() -> dict[str, Any]:
    with open(_FILE, encoding="utf-8") as file:
        found: dict[str, Any] = json.load(file)
    return found


def answers() -> tuple[str, ...]:
    """Names of the answers that have a schema."""
    return tuple(_stored()["answers"])


def answer_schema(name: str) -> dict[str, Any]:
    """Schema of one answer, complete in itself.

    Args:
        name: of ``answers()``.
    """
    shapes = _stored()["$defs"]
    used: dict[str, Any] = {}
    _collect(shapes[name], shapes, used)
    return {
        "$schema": DRAFT,
        "$id": f"urn:zero-sizer:{name}:{VERSION}",
        "title": f"zero-sizer {name}",
        **shapes[name],
        "$defs": {key: used[key] for key in sorted(used)},
    }


def _collect(node: Any, shapes: dict[str, Any], used: dict[str, Any]) -> None:
    """Adds every shape that ``node`` refers to, however deep."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref":
                name = value.removeprefix(_REFERENCE)
                if name not in used:
                    used[name] = shapes[name]
                    _collect(shapes[name], shapes, used)
            else:
                _collect(value, shapes, used)
    elif isinstance(node, list):
        for item in node:
            _collect(item, shapes, used)
