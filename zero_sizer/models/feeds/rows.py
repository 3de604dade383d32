"""Rows that each weight of a model of several stacks multiplies in one sample.

A decoder multiplies every weight with every token. A tower multiplies with patches or frames, what
joins it to the text with fewer, a head with one. A model's kind is a row of ``KINDS``: names of its
weights, by patterns, and lengths by name; what no pattern names has the tokens' rows.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from zero_sizer.models.feeds.fields import nested, square, whole
from zero_sizer.models.feeds.records import TOKENS, Feed
from zero_sizer.models.spec import Architecture, ModelSpec
from zero_sizer.util.records import dataclass

Lengths = Mapping[str, float]
ONE, TEXT = "one", "tokens"
CLASS = "_class_name"  # of diffusers


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Blocks that attend.

    Attributes:
        arch: their widths.
        rows: name of the length of their input.
        pairs: query and key pairs of one head in one sample, of all blocks.
        causal: a fused kernel computes half of them.
        leads: nothing before it is trained: where nothing of it is either, it has no backward.
        under: pattern of its weights' names.
    """

    arch: Architecture
    rows: str
    pairs: float
    causal: bool = False
    leads: bool = False
    under: str = ""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How a kind of model spreads its inputs over its weights.

    Attributes:
        lengths: of one sample, by name, from its config and what it is fed.
        rows: (pattern of a weight's name, name of a length); the first that is found counts.
        stacks: its blocks, but those of the decoder of the model's own widths.
        decodes: it has such a decoder, which reads the tokens.
    """

    lengths: Callable[[Mapping[str, Any], Feed], dict[str, float]]
    rows: tuple[tuple[str, str], ...]
    stacks: Callable[[ModelSpec, Lengths], tuple[Stack, ...]]
    decodes: bool = False

    def rows_of(self, name: str, lengths: Lengths) -> float:
        """Rows of a weight by its name."""
        for pattern, length in self.rows:
            if re.search(pattern, name):
                return lengths[length]
        return lengths[TEXT]


def _pixels(feed: Feed) -> tuple[int, tuple[int, ...]]:
    """Rows of pixels that a sample brings, and the shape of one; none without images."""
    for given in feed.inputs:
        if given.name == "pixel_values":
            return given.rows, tuple(size for size in given.shape if size != TOKENS)  # type: ignore[misc]
    return 0, ()


def _arch(fields: Mapping[str, Any], *, gated: bool = False) -> Architecture:
    """Widths of a tower's blocks, under the names that configs give them."""
    hidden = whole(fields, "embed_dim", "hidden_size", "d_model")  # Qwen2-VL has both
    heads = whole(fields, "num_attention_heads", "num_heads", "encoder_attention_heads")
    ratio = fields.get("mlp_ratio", 4)
    ffn = whole(fields, "intermediate_size", "encoder_ffn_dim", default=int(hidden * ratio))
    return Architecture(
        num_layers=whole(fields, "num_hidden_layers", "depth", "encoder_layers"),
        hidden=hidden,
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads if heads else None,
        ffn=ffn,
        gated_mlp=gated,
        family="bert",  # their norms, and no rotation to speak of
    )


def _patched(fields: Mapping[str, Any], feed: Feed, classes: int, fewer: float) -> dict[str, float]:
    """Patches of tiles or images of one size, and what is left of them for the text."""
    tower = nested(fields, "vision_config") or fields
    tiles, shape = _pixels(feed)
    side, _ = square(tower, "patch_size", 14)
    per_tile = (shape[-2] // side) * (shape[-1] // side) if shape else 0
    return {
        "patches": tiles * per_tile,
        "rows": tiles * (per_tile + classes),
        "joined": tiles * per_tile * fewer,
        "tiles": tiles,
        "pairs": tiles * (per_tile + classes) ** 2,
        ONE: 1,
    }


def _tower_of(under: str, *, gated: bool = False) -> Any:
    def stacks(spec: ModelSpec, lengths: Lengths) -> tuple[Stack, ...]:
        fields = spec.hf_config
        arch = _arch(nested(fields, "vision_config") or fields, gated=gated)
        pairs = lengths["pairs"] * (arch.num_layers or 0)
        return (Stack(arch=arch, rows="rows", pairs=pairs, leads=True, under=under),)

    return stacks


def _joined(ratio: str, default: float) -> Callable[[Mapping[str, Any], Feed], dict[str, float]]:
    """Tiles of which each has a class token, its patches shuffled to fewer."""

    def lengths(fields: Mapping[str, Any], feed: Feed) -> dict[str, float]:
        found = fields.get(ratio) or nested(fields, "vision_config").get(ratio)
        share = found if isinstance(found, float) else default
        return _patched(fields, feed, 1, share * share)

    return lengths


def _gemma(fields: Mapping[str, Any], feed: Feed) -> dict[str, float]:
    found = _patched(fields, feed, 0, 1)
    tokens = whole(fields, "mm_tokens_per_image")
    return {**found, "joined": found["tiles"] * tokens} if tokens else found


def _pixtral(fields: Mapping[str, Any], feed: Feed) -> dict[str, float]:
    return _patched(fields, feed, 0, 1 / whole(fields, "spatial_merge_size", default=2) ** 2)


def _qwen(fields: Mapping[str, Any], feed: Feed) -> dict[str, float]:
    """Patches of every image in a row; a window attends to itself, some blocks to the image."""
    tower = nested(fields, "vision_config")
    merge = whole(tower, "spatial_merge_size", default=2)
    patches, _ = _pixels(feed)
    images = feed.measures.get("images", 0)
    grid = [feed.measures.get(name, 0) for name in ("grid_rows", "grid_columns")]
    whole_image = images * (grid[0] * grid[1]) ** 2
    depth, windowed = whole(tower, "depth"), 0
    pairs = float(depth * whole_image)
    full = tower.get("fullatt_block_indexes")
    if fields.get("model_type") == "qwen2_5_vl":
        patch = whole(tower, "patch_size", default=14)
        step = max(whole(tower, "window_size", default=112) // (patch * merge), 1)
        along = [_squares(side // merge, step) * merge * merge for side in grid]
        windowed = depth - (len(full) if isinstance(full, list) else 4)
        pairs = (depth - windowed) * whole_image + windowed * images * along[0] * along[1]
    return {
        "patches": patches,
        "rows": patches,
        "joined": patches / merge**2,
        "pairs": pairs,
        ONE: 1,
    }


def _squares(length: int, step: int) -> int:
    """Squares of the lengths of windows, the last of which is what remains."""
    return length // step * step**2 + (length % step) ** 2


def _qwen_stacks(spec: ModelSpec, lengths: Lengths) -> tuple[Stack, ...]:
    fields = spec.hf_config
    tower = nested(fields, "vision_config")
    is_gated = fields.get("model_type") == "qwen2_5_vl"
    return (
        Stack(
            arch=_arch(tower, gated=is_gated),
            rows="rows",
            pairs=lengths["pairs"],
            leads=True,
            under=r"\bvisual\.",
        ),
    )


def _classified(fields: Mapping[str, Any], feed: Feed) -> dict[str, float]:
    extra = {"vit": 1, "deit": 2, "dinov2": 1}[str(fields.get("model_type"))]
    return _patched(fields, feed, extra, 1)


def _contrasted(fields: Mapping[str, Any], feed: Feed) -> dict[str, float]:
    found = _patched(fields, feed, 0 if fields.get("model_type") == "siglip" else 1, 1)
    return {**found, "pooled": (2 * found["patches"] + 1) / 3}  # one query, keys and values of all


def _contrasted_stacks(spec: ModelSpec, lengths: Lengths) -> tuple[Stack, ...]:
    fields = spec.hf_config
    text = _arch(nested(fields, "text_config"))
    pairs = lengths[TEXT] ** 2 * (text.num_layers or 0)
    is_causal = fields.get("model_type") != "siglip"
    read = Stack(arch=text, rows=TEXT, pairs=pairs, causal=is_causal, leads=True,
                 under=r"\btext_model\.")  # fmt: skip
    return (*_tower_of(r"\bvision_model\.")(spec, lengths), read)


def _whisper(fields: Mapping[str, Any], feed: Feed) -> dict[str, float]:
    frames = feed.measures["frames"]
    return {"frames": frames, "spectrogram": 2 * frames, ONE: 1}


def _whisper_stacks(spec: ModelSpec, lengths: Lengths) -> tuple[Stack, ...]:
    fields = spec.hf_config
    encoder = _arch(fields)
    layers = whole(fields, "decoder_layers")
    heads = whole(fields, "decoder_attention_heads")
    decoder = Architecture(
        num_layers=layers,
        hidden=encoder.hidden,
        heads=heads,
        kv_heads=heads,
        head_dim=(encoder.hidden or 0) // heads if heads else None,
        ffn=whole(fields, "decoder_ffn_dim"),
        family="bert",
    )
    tokens, frames = lengths[TEXT], lengths["frames"]
    across = Architecture(
        num_layers=0, hidden=decoder.hidden, heads=heads, head_dim=decoder.head_dim
    )
    pairs = (encoder.num_layers or 0) * frames**2
    return (
        Stack(arch=encoder, rows="frames", pairs=pairs, leads=True, under=r"\bencoder\."),
        Stack(arch=decoder, rows=TEXT, pairs=layers * tokens**2, causal=True),
        Stack(arch=across, rows=TEXT, pairs=layers * tokens * frames),
    )


def _translated(fields: Mapping[str, Any], feed: Feed) -> dict[str, float]:
    written = next(given for given in feed.inputs if given.name == "labels")
    return {"target": float(written.shape[0])}


def _translated_stacks(spec: ModelSpec, lengths: Lengths) -> tuple[Stack, ...]:
    """An encoder and a decoder; T5's biases keep a fused kernel from leaving out half of it."""
    fields, arch = spec.hf_config, spec.arch
    read = whole(fields, "encoder_layers", "num_layers", "num_hidden_layers")
    written = whole(fields, "decoder_layers", "num_decoder_layers", default=read)
    source, target = lengths[TEXT], lengths["target"]
    is_causal = "decoder_layers" in fields
    across = replace(arch, num_layers=0, decoder_layers=None)
    return (
        Stack(
            arch=replace(arch, num_layers=read, decoder_layers=None),
            rows=TEXT,
            pairs=read * source**2,
            leads=True,
            under=r"\bencoder\b",
        ),
        Stack(
            arch=replace(arch, num_layers=written, decoder_layers=None),
            rows="target",
            pairs=written * target**2,
            causal=is_causal,
        ),
        Stack(arch=across, rows="target", pairs=written * source * target),
    )


def _heard(fields: Mapping[str, Any], feed: Feed) -> dict[str, float]:
    """Samples, and what each convolution leaves of them."""
    length = float(feed.inputs[0].shape[0])
    strides = fields.get("conv_stride") or (5, 2, 2, 2, 2, 2, 2)
    kernels = fields.get("conv_kernel") or (10, 3, 3, 3, 3, 2, 2)
    found = {}
    for number, (kernel, stride) in enumerate(zip(kernels, strides, strict=False)):
        length = (length - kernel) // stride + 1
        found[f"conv{number}"] = length
    return {**found, "rows": length, "pairs": length**2, ONE: 1}


_VISION = r"\b(vision_tower|vision_model)\b"
_EMBEDS = r"\b(patch_embedding|patch_embeddings|patch_conv|patch_embed)\b"
_NO_PRODUCT = (
    r"(cls_token|mask_token|probe|position\w*_embedding\w*|positional_\w+|pos_embed\.\w+)$",
    "none",
)
_TEXT_OF = (r"\blanguage_model\b", TEXT)


def _seeing(lengths: Any, stacks: Any, *more: tuple[str, str]) -> Kind:
    rows = (_NO_PRODUCT, *more, (_EMBEDS, "patches"), (_VISION, "rows"))
    return Kind(
        lengths=lengths,
        rows=(*rows, (r"\bmulti_modal_projector\b", "joined")),
        stacks=stacks,
        decodes=True,
    )


_QWEN = Kind(
    lengths=_qwen,
    rows=(_NO_PRODUCT, (r"\bvisual\.(deepstack_)?merger", "joined"), (r"\bvisual\.", "rows")),
    stacks=_qwen_stacks,
    decodes=True,
)
_CLASSIFIER = Kind(
    lengths=_classified,
    rows=(
        _NO_PRODUCT,
        (r"\b(cls_|distillation_)?classifier\b", ONE),
        (_EMBEDS, "patches"),
        ("", "rows"),
    ),
    stacks=_tower_of(""),
)
_CONTRASTIVE = Kind(
    lengths=_contrasted,
    rows=(
        _NO_PRODUCT,
        (r"\bhead\.attention\.in_proj", "pooled"),
        (r"_projection\b|\btext_model\.head\b|\bhead\.(mlp|attention\.out_proj)", ONE),
        (_EMBEDS, "patches"),
        (_VISION, "rows"),
    ),
    stacks=_contrasted_stacks,
)

KINDS: Mapping[str, Kind] = {
    **dict.fromkeys(
        ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe"), _QWEN
    ),
    **dict.fromkeys(
        ("llava", "vipllava"),
        _seeing(lambda fields, feed: _patched(fields, feed, 1, 1), _tower_of(_VISION)),
    ),
    **dict.fromkeys(("gemma3", "paligemma"), _seeing(_gemma, _tower_of(_VISION))),
    "internvl": _seeing(_joined("downsample_ratio", 0.5), _tower_of(_VISION)),
    "llama4": _seeing(
        _joined("pixel_shuffle_ratio", 0.5),
        _tower_of(_VISION),
        (r"\bvision_adapter\b", "joined"),
    ),
    "mistral3": _seeing(_pixtral, _tower_of(_VISION, gated=True)),
    **dict.fromkeys(("vit", "deit", "dinov2"), _CLASSIFIER),
    **dict.fromkeys(("clip", "siglip"), _CONTRASTIVE),
    **dict.fromkeys(
        ("t5", "mt5", "umt5", "longt5", "bart", "mbart", "pegasus", "marian", "m2m_100"),
        Kind(
            lengths=_translated,
            rows=(
                (r"\bEncDecAttention\.(k|v)\b|\bencoder_attn\.(k|v)_proj\b", TEXT),
                (r"\b(decoder|lm_head|shared)\b", "target"),
            ),
            stacks=_translated_stacks,
        ),
    ),
    **dict.fromkeys(
        ("wav2vec2", "hubert", "data2vec-audio", "unispeech", "unispeech-sat"),
        Kind(
            lengths=_heard,
            rows=(
                *((rf"\bconv_layers\.{n}\.", f"conv{n}") for n in range(7)),
                (r"\bmasked_spec_embed$", "none"),
                (r"\bclassifier\b", ONE),
                ("", "rows"),
            ),
            stacks=_tower_of(""),
        ),
    ),
    "whisper": Kind(
        lengths=_whisper,
        rows=(
            (r"\bembed_positions\b", "none"),
            (r"\bencoder\.conv1\b", "spectrogram"),
            (r"\bencoder\.|\bencoder_attn\.(k|v)_proj\b", "frames"),
        ),
        stacks=_whisper_stacks,
    ),
}
"""``model_type`` -> its kind."""


def kind_of(model: ModelSpec) -> Kind | None:
    """How a model spreads its inputs; None where that is not known."""
    fields = model.hf_config
    if CLASS in fields:
        from zero_sizer.models.feeds.denoiser_rows import DENOISERS

        return DENOISERS.get(str(fields[CLASS]))
    return KINDS.get(str(fields.get("model_type", "")))


def is_timed(model: ModelSpec) -> bool:
    """True if it is known what each weight of a model multiplies of what it is fed."""
    return kind_of(model) is not None
