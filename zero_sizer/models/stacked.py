"""Models of several stacks: widths by name, from the fields of nested configs.

A model that is no plain decoder is a table row here: where its config says each width, and which
other fields decide what runs. Lengths of what is fed (frames, patches, images) come from the feed
(``Feed.measures``) and stand beside the widths: a stack with an input length of its own is one more
factor of a size.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

from zero_sizer.models.feeds.fields import said_in
from zero_sizer.models.feeds.records import Feed
from zero_sizer.models.stacked_row import Stacked
from zero_sizer.models.two_towers import CLASSIFIERS, CLIP, SIGLIP
from zero_sizer.units import round_up

_DEFAULTS = Path(__file__).parent / "data" / "nested_defaults.json"
TYPE = "model_type"
KINDS_NAMED: Mapping[str, tuple[str, ...]] = {
    "text_config": ("llama", "mistral", "qwen2"),
}
"""Nested config -> ``model_type``s that it may name."""


_WHISPER = Stacked(
    heads=("WhisperForConditionalGeneration",),
    widths={
        "hidden": "d_model",
        "ffn": "decoder_ffn_dim",
        "heads": "decoder_attention_heads",
        "vocab": "vocab_size",
        "encoder_hidden": "d_model",
        "encoder_ffn": "encoder_ffn_dim",
        "encoder_heads": "encoder_attention_heads",
        "mels": "num_mel_bins",
        "positions": "max_target_positions",
    },
    words=("activation_function", "tie_word_embeddings"),
    depths={"model.encoder.layers": "encoder_layers", "model.decoder.layers": "decoder_layers"},
    rates=("dropout", "attention_dropout", "activation_dropout"),
    lengths={"encoder_": (("frames",),)},
    pairs=(("hidden", "vocab"), ("hidden", "positions"), ("mels", "hidden"), ("frames", "hidden")),
    constant=("encoder_layerdrop", "decoder_layerdrop", "apply_spec_augment", "scale_embedding"),
)

PADDED = 32
"""Rows that memory-efficient attention rounds its sums of exponentials up to."""

_VIT = Stacked(
    heads=("ViTForImageClassification",),
    widths={
        "hidden": "hidden_size",
        "ffn": "intermediate_size",
        "heads": "num_attention_heads",
        "labels": "num_labels",
        "patch": ("num_channels", "patch_size", "patch_size"),
    },
    words=("hidden_act", "qkv_bias"),
    rates=("hidden_dropout_prob", "attention_probs_dropout_prob"),
    lengths={"": (("rows",), ("patches",))},
    pairs=(("hidden", "labels"), ("patch", "hidden")),
    depths={"vit.layers": "num_hidden_layers"},
    sides={"side": "patch_size"},
    constant=("problem_type",),
    read=("image_size",),
)

_DINOV2 = Stacked(
    heads=("Dinov2ForImageClassification",),
    widths={**_VIT.widths, "ffn": ("hidden_size", "mlp_ratio")},
    words=_VIT.words,
    rates=(*_VIT.rates, "drop_path_rate"),
    lengths=_VIT.lengths,
    pairs=_VIT.pairs,
    depths={"dinov2.encoder.layer": "num_hidden_layers"},
    sides=_VIT.sides,
    constant=("problem_type", "use_swiglu_ffn", "use_mask_token"),
    read=("image_size",),
)

_TEXT = {
    "hidden": "text_config.hidden_size",
    "ffn": "text_config.intermediate_size",
    "heads": "text_config.num_attention_heads",
    "kv_heads": "text_config.num_key_value_heads",
    "head_dim": "text_config.head_dim",
    "vocab": "text_config.vocab_size",
}

_LLAVA = Stacked(
    heads=("LlavaForConditionalGeneration",),
    widths={
        **_TEXT,
        "tower_hidden": "vision_config.hidden_size",
        "tower_ffn": "vision_config.intermediate_size",
        "tower_heads": "vision_config.num_attention_heads",
        "patch": (
            "vision_config.num_channels",
            "vision_config.patch_size",
            "vision_config.patch_size",
        ),
    },
    depths={
        "model.vision_tower.encoder.layers": "vision_config.num_hidden_layers",
        "model.language_model.layers": "text_config.num_hidden_layers",
    },
    sides={"side": "vision_config.patch_size"},
    words=(
        "tie_word_embeddings",
        "projector_hidden_act",
        "vision_feature_select_strategy",
        "vision_feature_layer",
        "text_config.model_type",
        "text_config.hidden_act",
        "vision_config.model_type",
        "vision_config.hidden_act",
    ),
    rates=("text_config.attention_dropout", "vision_config.attention_dropout"),
    lengths={"tower_": (("rows",), ("patches",))},
    pairs=(
        ("hidden", "vocab"),
        ("tower_hidden", "hidden"),
        ("patch", "tower_hidden"),
        ("hidden", "hidden"),
    ),
    nested={"text_config": "llama", "vision_config": "clip_vision_model"},
    same=(("heads", "kv_heads"),),
    read=("text_config.max_position_embeddings", "vision_config.image_size"),
)

_QWEN2_VL = Stacked(
    heads=("Qwen2VLForConditionalGeneration",),
    widths={
        **_TEXT,
        "tower_hidden": "vision_config.embed_dim",
        "tower_ffn": ("vision_config.embed_dim", "vision_config.mlp_ratio"),
        "tower_heads": "vision_config.num_heads",
        "patch": (
            "vision_config.in_channels",
            "vision_config.temporal_patch_size",
            "vision_config.patch_size",
            "vision_config.patch_size",
        ),
    },
    words=("tie_word_embeddings", "text_config.hidden_act", "vision_config.hidden_act"),
    depths={
        "model.visual.blocks": "vision_config.depth",
        "model.language_model.layers": "text_config.num_hidden_layers",
    },
    sides={"side": "vision_config.patch_size", "span": "vision_config.temporal_patch_size"},
    rates=("text_config.attention_dropout",),
    lengths={"tower_": (("patches",),)},
    pairs=(
        ("hidden", "vocab"),
        ("tower_hidden", "hidden"),
        ("patch", "tower_hidden"),
    ),
    nested={"text_config": "qwen2_vl_text", "vision_config": "qwen2_vl_vision"},
    read=("text_config.max_position_embeddings",),
    constant=("vision_config.spatial_merge_size", "text_config.use_sliding_window"),
)

_QWEN2_5_VL = replace(
    _QWEN2_VL,
    heads=("Qwen2_5_VLForConditionalGeneration",),
    widths={
        **_QWEN2_VL.widths,
        "tower_hidden": "vision_config.hidden_size",
        "tower_ffn": "vision_config.intermediate_size",
    },
    nested={"text_config": "qwen2_5_vl_text", "vision_config": "qwen2_5_vl_vision"},
    told_apart={"model.visual.blocks": "vision_config.fullatt_block_indexes"},
)

_QWEN3_VL = replace(
    _QWEN2_5_VL,
    heads=("Qwen3VLForConditionalGeneration",),
    widths={**_QWEN2_5_VL.widths, "grid": "vision_config.num_position_embeddings"},
    words=(*_QWEN2_VL.words, "text_config.attention_bias"),
    pairs=(*_QWEN2_VL.pairs, ("grid", "tower_hidden"), ("hidden", "hidden")),
    depths={
        "model.visual.blocks": "vision_config.depth",
        "model.visual.deepstack_merger_list": "vision_config.deepstack_visual_indexes",
        "model.language_model.layers": "text_config.num_hidden_layers",
    },
    nested={"text_config": "qwen3_vl_text", "vision_config": "qwen3_vl_vision"},
    constant=("vision_config.spatial_merge_size",),
    alike={"vision_config.out_hidden_size": ("hidden", "hidden")},
    told_apart={},
    followed={"model.visual.blocks": "vision_config.deepstack_visual_indexes"},
)

STACKED: Mapping[str, Stacked] = {
    "qwen3_vl": _QWEN3_VL,
    "qwen2_5_vl": _QWEN2_5_VL,
    "qwen2_vl": _QWEN2_VL,
    "whisper": _WHISPER,
    "vit": _VIT,
    "deit": replace(
        _VIT,
        heads=("DeiTForImageClassification",),
        depths={"deit.layers": "num_hidden_layers"},
    ),
    "dinov2": _DINOV2,
    "llava": _LLAVA,
    "clip": CLIP,
    "siglip": SIGLIP,
}
OF_CLASS: Mapping[tuple[str, str], Stacked] = CLASSIFIERS
"""(``model_type``, class) of a class that has other stacks than the type's first -> its row."""


@cache
def nested_defaults() -> Mapping[str, Mapping[str, Any]]:
    """``model_type`` -> field -> default, of configs that the table reads."""
    found: dict[str, dict[str, Any]] = json.loads(_DEFAULTS.read_text(encoding="utf-8"))
    return found


def row_of(fields: Mapping[str, Any]) -> Stacked | None:
    """The table's row of a config."""
    kind, named = str(fields.get(TYPE, "")), fields.get("architectures")
    found = OF_CLASS.get((kind, str(named[0]))) if isinstance(named, list) and named else None
    return found or STACKED.get(kind)


def row(fields: Mapping[str, Any]) -> Stacked:
    """The table's row of a config that has one."""
    if (found := row_of(fields)) is None:
        raise KeyError(fields.get(TYPE))
    return found


def value(fields: Mapping[str, Any], path: str) -> Any:
    """The field at ``path`` (``vision_config.hidden_size``), or its class's default.

    Older files say a language model's fields outside of ``text_config``.
    """
    outer, dot, name = path.partition(".")
    if not dot:
        return _own(fields, str(fields[TYPE]), outer)
    config = said_in(fields, outer)
    if not isinstance(config, Mapping):
        config = fields if outer == "text_config" else {}
    kind = config.get(TYPE) if config is not fields else None
    if kind is None or kind == fields[TYPE]:  # older files of Qwen's say the whole model's there
        kind = row(fields).nested[outer]
    return _own(config, str(kind), name)


def _width(fields: Mapping[str, Any], path: "str | tuple[str, ...]") -> Any:
    if isinstance(path, str):
        return value(fields, path)
    values = [value(fields, one) for one in path]
    return prod(values) if all(map(_is_whole, values)) else None


def _own(fields: Mapping[str, Any], kind: str, name: str) -> Any:
    if name == TYPE:
        return kind
    found = fields.get(name)
    if name == "num_labels" and found is None:
        found = len(fields.get("id2label") or ()) or None
    return nested_defaults().get(kind, {}).get(name) if found is None else found


def widths_of(fields: Mapping[str, Any], feed: Feed) -> dict[str, int] | None:
    """Widths and lengths by name; None where one is no whole number above 0.

    Heads that share a hidden size have ``head_dim``s of equal parts of it.
    """
    row = row_of(fields)
    if row is None:
        return None
    if not set(row.own_lengths) <= feed.measures.keys():
        return None
    found: dict[str, Any] = {**feed.measures}
    for name, path in row.widths.items():
        found[name] = _width(fields, path)
    for stack in stacks_in(row.widths):
        found.update(_of_heads(stack, found, has_kv=f"{stack}kv_heads" in row.widths))
    if not all(map(_is_whole, found.values())) or not _is_alike(fields, row, found):
        return None
    if any(found[one] != found[other] for one, other in row.same):
        return None
    return {**found, **{padded(name): round_up(found[name], PADDED) for name in row.own_lengths}}


def _is_alike(fields: Mapping[str, Any], row: Stacked, widths: Mapping[str, Any]) -> bool:
    """Whether further sizes are what they are in every model of the row."""
    return all(
        (value(fields, path) or widths[usual]) == widths[name]
        for path, (name, usual) in row.alike.items()
    )


def _of_heads(stack: str, found: Mapping[str, Any], *, has_kv: bool) -> dict[str, Any]:
    """Widths of heads as a config's class fills them in."""
    hidden, heads = found[f"{stack}hidden"], found[f"{stack}heads"]
    head_dim, kv_heads = found.get(f"{stack}head_dim"), found.get(f"{stack}kv_heads")
    if head_dim is None and _is_whole(hidden) and _is_whole(heads) and hidden % heads == 0:
        head_dim = hidden // heads
    filled = {f"{stack}head_dim": head_dim}
    return {**filled, f"{stack}kv_heads": kv_heads or heads} if has_kv else filled


def padded(length: str) -> str:
    """Name of a length rounded up to ``PADDED``."""
    return f"{length}_{PADDED}"


def stacks_in(names: Mapping[str, Any]) -> Iterator[str]:
    """Prefixes of the widths of each stack, "" for the one that reads tokens."""
    return (name.removesuffix("heads") for name in names
            if name.endswith("heads") and not name.endswith("kv_heads"))  # fmt: skip


def _is_whole(size: Any) -> bool:
    return isinstance(size, int) and not isinstance(size, bool) and size > 0


def words_of(fields: Mapping[str, Any]) -> dict[str, Any] | None:
    """Field -> value of what decides which operators run; None where that is not known."""
    row = row_of(fields)
    if row is None:
        return None
    if any(value(fields, path) != _default(fields, path) for path in row.constant):
        return None
    if "labels" in row.widths and value(fields, "num_labels") == 1:  # a regression
        return None
    found = {path: value(fields, path) for path in row.words}
    return {**found, **{path: bool(value(fields, path)) for path in row.rates}}


def sides_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Further sizes that tensors are shaped by."""
    return {name: value(fields, path) for name, path in row(fields).sides.items()}


def depths_of(fields: Mapping[str, Any]) -> dict[str, int] | None:
    """List of blocks -> how many; None where one is no whole number above 0."""
    said = {blocks: value(fields, path) for blocks, path in row(fields).depths.items()}
    found = {blocks: len(of) if isinstance(of, list) else of for blocks, of in said.items()}
    return found if all(map(_is_whole, found.values())) else None


def followed_of(fields: Mapping[str, Any]) -> dict[str, list[int]]:
    """List of blocks -> numbers of those after which something runs outside of them."""
    return {blocks: sorted(value(fields, path)) for blocks, path in row(fields).followed.items()}


def has_usual_order(fields: Mapping[str, Any]) -> bool:
    """True if blocks that something follows have other blocks before, between and behind them."""
    depths = depths_of(fields) or {}
    for blocks, path in row(fields).followed.items():
        numbers = value(fields, path)
        if not isinstance(numbers, list) or not all(map(_is_whole, numbers)):
            return False
        if any(b - a < 2 for a, b in pairwise((*numbers, depths.get(blocks, 0)))):
            return False
    return True


def kinds_of(fields: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """List of blocks -> kind of each, of lists whose blocks differ: 1 where it sees images whole.

    Empty for a list whose config names no such blocks, by their numbers.
    """
    depths, found = depths_of(fields) or {}, {}
    for blocks, path in row(fields).told_apart.items():
        numbers = value(fields, path)
        is_list = isinstance(numbers, list) and all(isinstance(n, int) for n in numbers)
        found[blocks] = (
            tuple(int(n in numbers) for n in range(depths.get(blocks, 0))) if is_list else ()
        )
    return found


def layout_key(fields: Mapping[str, Any]) -> str | None:
    """Key that configs share whose class has tensors of the same names; None where not known."""
    row, words = row_of(fields), words_of(fields)
    if row is None or words is None:
        return None
    named = (fields.get("architectures") or row.heads)[0]
    if named not in row.heads:
        return None
    return json.dumps([fields[TYPE], named, words], sort_keys=True)


def _default(fields: Mapping[str, Any], path: str) -> Any:
    outer, dot, name = path.partition(".")
    kind = row(fields).nested[outer] if dot else str(fields[TYPE])
    return nested_defaults()[kind].get(name if dot else outer)
