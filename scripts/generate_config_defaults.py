"""Writes the defaults of the config fields that layouts read, from transformers' config classes.

Usage: ``python scripts/generate_config_defaults.py [--check]`` where transformers is installed.
"""

import dataclasses
import sys
import typing
from pathlib import Path
from typing import Any

import data_file
import transformers
from model_sources import CONFIG_FIELDS
from transformers.activations import ACT2FN

from zero_sizer.models.layouts.families import FAMILIES

PATH = Path(__file__).parent.parent / "zero_sizer" / "models" / "data" / "config_defaults.json"


def _kind(annotation: Any) -> str:
    """``int``, ``bool``, ``str``, ``list`` or ``float``, with ``?`` where null is allowed."""
    options = typing.get_args(annotation) or (annotation,)
    kinds = {typing.get_origin(option) or option for option in options} - {type(None)}
    null = "?" if type(None) in options else ""
    return next(k.__name__ for k in (float, int, bool, str, list) if k in kinds) + null


def defaults(model_type: str) -> dict[str, Any]:
    """``fields`` (name -> [kind, default]) and ``aliases`` (standard -> own name) of a config."""
    config_class = type(transformers.AutoConfig.for_model(model_type))
    fields = {
        field.name: [_kind(field.type), field.default]
        for field in dataclasses.fields(config_class)
        if field.name in CONFIG_FIELDS
    }
    return {"fields": fields, "aliases": dict(config_class.attribute_map)}


def render() -> str:
    """The data file's text."""
    learnt = [name for name in sorted(ACT2FN) if any(True for _ in ACT2FN[name].parameters())]
    known = {
        "transformers": transformers.__version__,
        "activations": [name for name in sorted(ACT2FN) if name not in learnt],
        "learnt_activations": learnt,
    }
    of_families = {name: defaults(name) for name in sorted(FAMILIES)}
    return data_file.text_of({**known, **of_families}.items())


if __name__ == "__main__":
    sys.exit(data_file.main(__doc__, PATH, render))
