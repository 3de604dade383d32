"""Writes the layouts of models of several stacks (``models/data/stacked_layouts.json``).

Usage: ``python scripts/generate_stacked_layouts.py [--check]`` in an environment that has torch and
transformers. A layout is what transformers' own class has, built at three sets of widths
(``family_members``): each dimension becomes the sum of products of widths that gives all three.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import data_file
from generate_fed_profiles import member, structures
from generate_models import compact, module_rows

from zero_sizer.models import stacked
from zero_sizer.tracing.widths import Products, Solver

PATH = Path(__file__).parent.parent / "zero_sizer" / "models" / "data" / "stacked_layouts.json"


def layout(fields: Mapping[str, Any]) -> list[Any]:
    """Modules of a config's class, their dimensions in words."""
    members = [member(fields, number) for number in range(3)]
    row = stacked.row(fields)
    widths = [{**m.widths, **stacked.sides_of(m.fields)} for m in members]
    solver = Solver(widths, _dimensions(widths[0]))
    built = [compact(module_rows(_module(m.fields))) for m in members]
    return [_item(items, solver, row) for items in zip(*built, strict=True)]


def _dimensions(widths: Mapping[str, int]) -> Products:
    """Widths, heads that a hidden size is made of, and numbers."""
    stacks = stacked.stacks_in(widths)
    heads = [(f"{s}{kind}", f"{s}head_dim") for s in stacks for kind in ("heads", "kv_heads")]
    pairs = [pair for pair in heads if all(name in widths for name in pair)]
    return ((), *((name,) for name in widths), *pairs)


def _module(fields: Mapping[str, Any]) -> Any:
    import torch
    import transformers

    from zero_sizer.tracing.build import config_of

    config = config_of(fields)
    with torch.device("meta"):
        return getattr(transformers, fields["architectures"][0])._from_config(
            config, dtype=torch.bfloat16
        )


def _item(items: Sequence[Any], solver: Solver, row: stacked.Stacked) -> Any:
    first = items[0]
    if isinstance(first, list):
        return _row(items, solver)
    if len({item["count"] for item in items}) > 1 or first["repeat"][:-4] not in row.depths:
        raise SystemExit(f"{first['repeat']}: {first['count']} blocks")
    modules = [_row(rows, solver) for rows in zip(*(i["modules"] for i in items), strict=True)]
    return {"repeat": first["repeat"], "modules": modules}


def _row(rows: Sequence[Any], solver: Solver) -> list[Any]:
    name, kind, *tensors = rows[0]
    found = [
        {key: _tensor([of[key] for of in group], solver) for key in group[0]}
        for group in zip(*(row[2:] for row in rows), strict=True)
    ]
    return [name, kind, *found] if tensors else [name, kind]


def _tensor(values: Sequence[Any], solver: Solver) -> Any:
    first = values[0]
    if isinstance(first, str):
        return first
    if isinstance(first, dict):
        return {**first, "shape": _shape([value["shape"] for value in values], solver)}
    return _shape(values, solver)


def _shape(shapes: Sequence[Sequence[int]], solver: Solver) -> list[Any]:
    return [_dimension(sizes, solver) for sizes in zip(*shapes, strict=True)]


def _dimension(sizes: tuple[int, ...], solver: Solver) -> Any:
    if len(set(sizes)) == 1:
        return sizes[0]
    terms = [[list(solver.products[p]), c] for p, c in solver.terms(sizes)]
    return [[names, coefficient] for names, coefficient in terms]


def render() -> str:
    """The data file's text."""
    found = {}
    for structure in structures():
        key = stacked.layout_key(structure.fields)
        found[key] = layout(structure.fields)
    return data_file.text_of(found.items())


if __name__ == "__main__":
    sys.exit(data_file.main(__doc__, PATH, render))
