"""A config.json of a model of several stacks, laid out without torch (``models.stacked``)."""

import json
from collections.abc import Mapping
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

from zero_sizer.models import stacked
from zero_sizer.models.feeds import feed_of
from zero_sizer.models.sources.bundled import tensors_of
from zero_sizer.models.spec import MAX_LAYERS, Architecture, ModelSpec

_LAYOUTS = Path(__file__).parents[1] / "data" / "stacked_layouts.json"
_UNIT = 40  # coefficients are fortieths, as in a family's profile
_MOST = 10**9  # of a width


@cache
def _layouts() -> Mapping[str, Any]:
    try:
        found: dict[str, Any] = json.loads(_LAYOUTS.read_text(encoding="utf-8"))
    except FileNotFoundError:  # while they are generated
        return {}
    return found


def laid_out(fields: Mapping[str, Any], *, name: str, where: str) -> ModelSpec | None:
    """The model of a config's fields; None where only transformers may know it."""
    if stacked.row_of(fields) is None:
        return None
    spec = ModelSpec(name=name, origin="", parameters=(), hf_config=fields)
    feed, modules = feed_of(spec), _layouts().get(stacked.layout_key(fields) or "")
    widths = stacked.widths_of(fields, feed) if feed is not None else None
    depths = stacked.depths_of(fields)
    if modules is None or widths is None or depths is None:
        return None
    sizes = {**widths, **stacked.sides_of(fields)}
    if any(not 0 < size <= _MOST for size in sizes.values()):
        return None
    if any(depth > MAX_LAYERS for depth in depths.values()):
        return None
    parameters, buffers, shared = tensors_of({"modules": _sized(modules, sizes, depths)})
    named = (fields.get("architectures") or stacked.row(fields).heads)[0]
    return ModelSpec(
        name=name,
        origin=f"{where} ({named})",
        parameters=parameters,
        buffers=buffers,
        arch=_arch(fields, widths, depths, parameters),
        hf_config={**fields, "architectures": [named]},
        shared=shared,
    )


def _arch(
    fields: Mapping[str, Any],
    widths: Mapping[str, int],
    depths: Mapping[str, int],
    parameters: tuple[Any, ...],
) -> Architecture:
    """Widths of the stack that reads tokens, or of the only one; of Whisper its encoder's depth.

    As a config's own names say them to ``layouts.architecture``.
    """
    row = stacked.row(fields)
    counted = row.nested or len(depths) == 1
    path = "text_config.max_position_embeddings"
    longest = stacked.value(fields, path) if path in row.read else None
    return Architecture(
        family=str(fields["model_type"]),
        num_layers=list(depths.values())[-1 if counted else 0],
        hidden=widths["hidden"],
        heads=widths["heads"],
        kv_heads=widths.get("kv_heads", widths["heads"]),
        head_dim=widths["head_dim"],
        ffn=widths["ffn"] if str(row.widths["ffn"]).endswith("intermediate_size") else None,
        max_positions=longest,
        vocab=widths.get("vocab"),
        gated_mlp=any("gate_proj" in tensor.name for tensor in parameters),
        tied_embeddings=bool(stacked.value(fields, "tie_word_embeddings")),
    )


def _sized(modules: list[Any], sizes: Mapping[str, int], depths: Mapping[str, int]) -> list[Any]:
    found: list[Any] = []
    for item in modules:
        if isinstance(item, list):
            found.append(_row(item, sizes))
            continue
        count = depths[item["repeat"].removesuffix(".{i}")]
        rows = [_row(row, sizes) for row in item["modules"]]
        found.append({"repeat": item["repeat"], "first": 0, "count": count, "modules": rows})
    return found


def _row(row: list[Any], sizes: Mapping[str, int]) -> list[Any]:
    name, kind, *tensors = row
    return [name, kind, *({k: _tensor(v, sizes) for k, v in of.items()} for of in tensors)]


def _tensor(value: Any, sizes: Mapping[str, int]) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return {**value, "shape": _shape(value["shape"], sizes)}
    return _shape(value, sizes)


def _shape(dimensions: list[Any], sizes: Mapping[str, int]) -> list[int]:
    return [d if isinstance(d, int) else _dimension(d, sizes) for d in dimensions]


def _dimension(terms: list[Any], sizes: Mapping[str, int]) -> int:
    total: int = sum(c * prod(sizes[name] for name in names) for names, c in terms)
    return total // _UNIT
