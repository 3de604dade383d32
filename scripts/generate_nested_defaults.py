"""Writes the defaults of the nested configs' fields that ``models.stacked`` reads.

Usage: ``python scripts/generate_nested_defaults.py [--check]`` where transformers is installed.
"""

import dataclasses
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import data_file
import transformers

from zero_sizer.models.stacked import KINDS_NAMED, OF_CLASS, STACKED

PATH = Path(__file__).parent.parent / "zero_sizer" / "models" / "data" / "nested_defaults.json"


def fields_read() -> Iterator[tuple[str, str]]:
    """(``model_type`` of a config, field) of everything in the table."""
    for kind, row in (*STACKED.items(), *((kind, row) for (kind, _), row in OF_CLASS.items())):
        widths = [[path] if isinstance(path, str) else path for path in row.widths.values()]
        for path in (
            *chain(*widths),
            *row.words,
            *row.rates,
            *row.constant,
            *row.read,
            *row.alike,
            *row.depths.values(),
            *row.sides.values(),
            *row.told_apart.values(),
        ):
            outer, dot, name = path.partition(".")
            if not dot:
                yield kind, outer
                continue
            for nested in {row.nested[outer], *KINDS_NAMED.get(outer, ())}:
                yield nested, name


def _config(kind: str) -> Any:
    """A config of a ``model_type``, or of what another's nested config is."""
    if kind in transformers.CONFIG_MAPPING:
        return transformers.AutoConfig.for_model(kind)
    for outer, row in STACKED.items():
        for name, nested in row.nested.items():
            if nested == kind:
                return getattr(transformers.AutoConfig.for_model(outer), name)
    raise SystemExit(f"no config is of model_type {kind}")


def render() -> str:
    """The data file's text."""
    found: dict[str, dict[str, Any]] = {}
    for kind, name in sorted(set(fields_read())):
        config = _config(kind)
        stated = {field.name: field.default for field in dataclasses.fields(config)}
        if hasattr(config, name) and stated.get(name, 0) is not None:  # else it follows from others
            found.setdefault(kind, {})[name] = getattr(config, name)
    return data_file.text_of(found.items())


if __name__ == "__main__":
    sys.exit(data_file.main(__doc__, PATH, render))
