"""Answers as plain JSON values: one way for what is printed and for what Python returns."""

import json
from collections.abc import Mapping
from math import isfinite
from typing import Any


def plain(value: Any) -> Any:
    """The value as ``json.loads`` would give it back.

    JSON has no NaN and no infinity: a config's are written as words, and so is what is no JSON
    value at all, a day for one.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value)


def document_text(mapping: Mapping[str, Any]) -> str:
    """One JSON document."""
    return json.dumps(plain(mapping), indent=1, ensure_ascii=False, allow_nan=False)


def print_document(mapping: Mapping[str, Any]) -> None:
    """Print one JSON document."""
    print(document_text(mapping))
