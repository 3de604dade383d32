"""Reads a config.json: JSON, values in bounds, the config class's defaults and post-init rules."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from zero_sizer.errors import InputError, UnsupportedError
from zero_sizer.models.layouts.families import FAMILIES, Family
from zero_sizer.models.spec import MAX_LAYERS
from zero_sizer.util import files
from zero_sizer.util.spelling import did_you_mean, shown

_DEFAULTS = Path(__file__).parents[1] / "data" / "config_defaults.json"
_MAX_BYTES = 2**20  # the largest published ones have some 200 KiB
_MAX_WIDTH = 10**9
_LAYER_KEYS = frozenset({"num_hidden_layers", "n_layer", "num_layers", "num_decoder_layers"})
# Counts that may be nothing; every other integer field is a width and at least 1.
_MAY_BE_ZERO = frozenset(
    {
        "n_shared_experts",
        "first_k_dense_replace",
        "num_experts",
        "num_ln_in_parallel_attn",
        "type_vocab_size",
    }
)
ACTIVATION_KEYS = frozenset({"hidden_act", "hidden_activation", "activation_function"})
_ANY_INTEGER = frozenset({"pad_token_id"})
_PYTHON_TYPES = {"int": int, "bool": bool, "str": str, "list": list}


@cache
def config_defaults() -> Mapping[str, Any]:
    """Per family ``fields`` (name -> [kind, default]) and ``aliases``; all ``activations``."""
    defaults: Mapping[str, Any] = json.loads(_DEFAULTS.read_text(encoding="utf-8"))
    return defaults


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in ``path``.

    Raises:
        InputError: it cannot be read, or holds something else.
    """
    value = files.read_json(path, _MAX_BYTES, "a config.json", constants=True)
    if not isinstance(value, dict):
        raise InputError("holds no JSON object", where=str(path))
    return value


def resolve_fields(raw: Mapping[str, Any], model_type: str, where: str) -> dict[str, Any]:
    """``raw`` with defaults, aliases and derived fields as transformers' config class has them.

    Args:
        raw: the config as read.
        model_type: one of ``FAMILIES``.
        where: the file, for errors.

    Raises:
        InputError: a field has the wrong type, is out of bounds, or is missing.
    """
    known = config_defaults()[model_type]
    values = _own_names(raw, model_type)
    family = FAMILIES[model_type]
    if values.get(family.hidden_key) is None:
        raise InputError(f"{family.hidden_key} is missing", where=where)
    if "head_dim" not in known["fields"] and values.get("head_dim") is not None:
        _check("head_dim", "int?", values["head_dim"], where)  # read by attention all the same
    for key, (kind, default) in known["fields"].items():
        _check(key, kind, raw.get(key, default), where)  # what an alias overrides counts too
        _check(key, kind, values.setdefault(key, default), where)
    _check_dtype(values, where)
    _derive(values, model_type)
    for standard, own in known["aliases"].items():
        source, target = (own, standard) if own in known["fields"] else (standard, own)
        if source in values:
            values[target] = values[source]
    _check_together(values, family, where)
    return values


def _own_names(raw: Mapping[str, Any], model_type: str) -> dict[str, Any]:
    """``raw`` with fields that are spelt by another name under the class's own one too."""
    known = config_defaults()[model_type]
    values = dict(raw)
    for standard, own in known["aliases"].items():
        source, target = (standard, own) if own in known["fields"] else (own, standard)
        if source in raw:
            values[target] = raw[source]
    if values.get("n_embed") is not None and model_type in ("bloom", "falcon"):
        values["hidden_size"] = values["n_embed"]
    return values


def _check_dtype(values: dict[str, Any], where: str) -> None:
    """``dtype`` is the newer name of ``torch_dtype`` and counts first."""
    dtype = values.get("dtype", values.get("torch_dtype"))
    if dtype is not None and not isinstance(dtype, str):
        raise InputError(f"dtype is {dtype!r}, not a name such as bfloat16", where=where)
    values["dtype"] = dtype


def _check(key: str, kind: str, value: Any, where: str) -> None:
    if value is None and kind.endswith("?"):
        return
    wanted = kind.removesuffix("?")
    if wanted == "float":
        valid = type(value) in (int, float) and 0 <= value <= 1
        meaning = "a number from 0 to 1"
    elif wanted == "int":
        valid, meaning = _in_bounds(key, value)
    else:
        valid = type(value) is _PYTHON_TYPES[wanted]
        meaning = {"bool": "true or false", "str": "text", "list": "a list"}[wanted]
    if not valid:
        shown = repr(value) if len(repr(value)) <= 40 else repr(value)[:37] + "..."
        raise InputError(f"{key} is {shown}, not {meaning}", where=where)


def _in_bounds(key: str, value: Any) -> tuple[bool, str]:
    if key in _ANY_INTEGER:
        return type(value) is int, "a whole number"
    least = 0 if key in _MAY_BE_ZERO else 1
    most = MAX_LAYERS if key in _LAYER_KEYS else _MAX_WIDTH
    return type(value) is int and least <= value <= most, f"a whole number from {least} to {most:,}"


def _derive(values: dict[str, Any], model_type: str) -> None:
    """What the config classes compute from other fields after reading them."""
    heads = values.get("num_attention_heads")
    if values.get("num_key_value_heads", 0) is None:
        values["num_key_value_heads"] = heads
    if model_type in ("llama", "mistral") and values["head_dim"] is None and heads:
        values["head_dim"] = values["hidden_size"] // heads
    if values.get("use_sliding_window") is False and model_type != "smollm3":
        values["sliding_window"] = None
    derive = _DERIVED.get(model_type)
    if derive:
        derive(values)


def _derive_t5(values: dict[str, Any]) -> None:
    if values["num_decoder_layers"] is None:
        values["num_decoder_layers"] = values["num_layers"]
    values["tie_word_embeddings"] = True  # since transformers 5, whatever the file says


def _derive_falcon(values: dict[str, Any]) -> None:
    if values["num_kv_heads"] is None:
        values["num_kv_heads"] = values["num_attention_heads"]
    if values["ffn_hidden_size"] is None:
        values["ffn_hidden_size"] = 4 * values["hidden_size"]
    if values["num_ln_in_parallel_attn"] is None and values["new_decoder_architecture"]:
        values["num_ln_in_parallel_attn"] = 2


def _derive_opt(values: dict[str, Any]) -> None:
    if values["word_embed_proj_dim"] is None:
        values["word_embed_proj_dim"] = values["hidden_size"]


def _derive_deepseek(values: dict[str, Any]) -> None:
    values["head_dim"] = values["qk_rope_head_dim"]


def _derive_qwen3_moe(values: dict[str, Any]) -> None:
    values["mlp_only_layers"] = values["mlp_only_layers"] or []


def _derive_llama4(values: dict[str, Any]) -> None:
    if not values.get("no_rope_layers"):  # an empty list is none
        values.pop("no_rope_layers", None)


_DERIVED = {
    "llama4_text": _derive_llama4,
    "qwen3_moe": _derive_qwen3_moe,
    "t5": _derive_t5,
    "falcon": _derive_falcon,
    "opt": _derive_opt,
    "deepseek_v2": _derive_deepseek,
    "deepseek_v3": _derive_deepseek,
    "qwen3_next": _derive_qwen3_moe,
}


def _check_together(values: Mapping[str, Any], family: Family, where: str) -> None:
    """What transformers refuses to build."""
    for key in ("num_attention_heads", "num_key_value_heads"):  # the family may know no such field
        _check(key, "int?", values.get(key), where)
    hidden, heads = values[family.hidden_key], values.get("num_attention_heads", 1)
    if family.divides and hidden % heads:
        raise InputError(
            f"{family.hidden_key} {hidden} is not a multiple of the {heads} attention heads",
            where=where,
        )
    if hidden < heads and not values.get("head_dim"):
        raise InputError(f"{family.hidden_key} {hidden} is less than {heads} heads", where=where)
    kv_heads = values.get("num_key_value_heads") or 1
    if heads % kv_heads:
        raise InputError(
            f"num_key_value_heads {kv_heads} does not divide the {heads} attention heads",
            where=where,
        )
    own = config_defaults()[values["model_type"]]["fields"]  # others are kept and not read
    for key in ACTIVATION_KEYS & own.keys():
        _check_activation(key, values[key], where)
    pad, vocab = values.get("pad_token_id"), values["vocab_size"]
    if family.padding_idx and pad is not None and not -vocab <= pad < vocab:
        raise InputError(f"pad_token_id {pad} is outside vocab_size {vocab}", where=where)


def _check_activation(key: str, name: Any, where: str) -> None:
    known = config_defaults()["activations"]
    if name not in known:
        hint = did_you_mean(str(name), known)
        raise InputError(f"{key} {name!r} is no activation", remedy=hint, where=where)


_INSTALL = "pip install zero-sizer[deepspeed], or name your own package.module:factory"


def unknown_family(model_type: str, path: Path, *, auto_map: bool, reason: str) -> UnsupportedError:
    """Says why the config at ``path`` cannot be laid out."""
    if auto_map:
        return UnsupportedError(
            f"model_type {shown(model_type)} needs the code beside it (auto_map), which is not run",
            remedy="name your own package.module:factory, or the safetensors files",
            where=str(path),
        )
    hint = did_you_mean(model_type, FAMILIES)
    return UnsupportedError(
        f"model_type {shown(model_type)} has no layout here, and {reason}",
        remedy=f"{hint} {_INSTALL}".lstrip(),
        where=str(path),
    )
