"""Rows that each weight of a denoiser multiplies: latents at each resolution, and a prompt."""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from zero_sizer.models.feeds.fields import whole
from zero_sizer.models.feeds.records import Feed
from zero_sizer.models.feeds.rows import ONE, Kind, Lengths, Stack
from zero_sizer.models.spec import Architecture, ModelSpec

_DEEPEST = 8  # resolutions of a UNet that are read
_QUERY = re.compile(r"\battn(1|2)\.to_q(\.base_layer)?\.weight$")
_CONVOLVED = re.compile(r"\bresnets\.\d+\.conv1(\.base_layer)?\.weight$")


def _shape(feed: Feed, name: str) -> tuple[int, ...]:
    return next(tuple(map(int, given.shape)) for given in feed.inputs if given.name == name)


def _unet_lengths(fields: Mapping[str, Any], feed: Feed) -> dict[str, float]:
    """Each block halves the sides, but the last; the way up has them in reverse."""
    _, height, width = _shape(feed, "sample")
    count = len(fields.get("block_out_channels") or (0,) * 4)
    levels = [float((height >> level) * (width >> level)) for level in range(count)]
    found = {f"down{level}": rows for level, rows in enumerate(levels)}
    found |= {f"up{level}": rows for level, rows in enumerate(reversed(levels))}
    prompt = float(_shape(feed, "encoder_hidden_states")[0])
    return {**found, "middle": levels[-1], "prompt": prompt, ONE: 1}


def _unet_rows() -> tuple[tuple[str, str], ...]:
    found = [
        (r"\b(time_emb_proj|time_embedding|add_embedding)\b", ONE),
        (r"\battn2\.to_(k|v)\b", "prompt"),
        (r"\bmid_block\b", "middle"),
        (r"\bconv_(in|out)\b", "down0"),
    ]
    for level in range(_DEEPEST):
        found += [
            (rf"\bdown_blocks\.{level}\.downsamplers\b", f"down{level + 1}"),
            (rf"\bup_blocks\.{level}\.upsamplers\b", f"up{level + 1}"),
            (rf"\bdown_blocks\.{level}\.", f"down{level}"),
            (rf"\bup_blocks\.{level}\.", f"up{level}"),
        ]
    return tuple(found)


_UNET_ROWS = _unet_rows()


def _unet_stacks(spec: ModelSpec, lengths: Lengths) -> tuple[Stack, ...]:
    """Attention to the image and to the prompt, and the norms of convolutions, by their widths.

    A convolution's normed, activated and added elements are counted as a block without attention
    that moves as much: 5 for each of its input and 10 for each of its output.
    """
    heads: Counter[tuple[int, str, bool]] = Counter()
    convolved: Counter[tuple[int, int, str]] = Counter()
    for tensor in spec.parameters:
        query, conv = _QUERY.search(tensor.name), _CONVOLVED.search(tensor.name)
        if query or conv:
            level = next(
                length for pattern, length in _UNET_ROWS if re.search(pattern, tensor.name)
            )
            if query:
                heads[tensor.shape[0], level, query.group(1) == "2"] += 1
            else:
                convolved[tensor.shape[1], tensor.shape[0], level] += 1
    found = []
    for (width, level, across), count in heads.items():
        keys = lengths["prompt"] if across else lengths[level]
        arch = Architecture(
            family="bert",
            num_layers=0 if across else count,
            hidden=width,
            heads=1,
            head_dim=width,
            ffn=4 * width,
            gated_mlp=True,
        )
        found.append(Stack(arch=arch, rows=level, pairs=count * lengths[level] * keys))
    for (into, out, level), count in convolved.items():
        arch = Architecture(family="bert", num_layers=count, hidden=out, ffn=5 * into // 2)
        found.append(Stack(arch=arch, rows=level, pairs=0))
    return tuple(found)


def _joint_lengths(fields: Mapping[str, Any], feed: Feed) -> dict[str, float]:
    """Latents packed by squares of two, and a prompt, which attend to each other."""
    shape = _shape(feed, "hidden_states")
    image = float(shape[0]) if len(shape) == 2 else float(shape[1] // 2 * (shape[2] // 2))
    prompt = float(_shape(feed, "encoder_hidden_states")[0])
    return {"image": image, "prompt": prompt, "joint": image + prompt, ONE: 1}


def _joint_stacks(spec: ModelSpec, lengths: Lengths) -> tuple[Stack, ...]:
    fields = spec.hf_config
    heads = whole(fields, "num_attention_heads", default=24)
    head_dim = whole(fields, "attention_head_dim", default=128)
    layers = whole(fields, "num_layers", default=19) + whole(fields, "num_single_layers")
    hidden = heads * head_dim
    arch = Architecture(
        family="bert",
        num_layers=layers,
        hidden=hidden,
        heads=heads,
        head_dim=head_dim,
        ffn=4 * hidden,
    )
    return (Stack(arch=arch, rows="joint", pairs=layers * lengths["joint"] ** 2),)


_JOINT = Kind(
    lengths=_joint_lengths,
    rows=(
        (r"\b(norm\w*\.linear|time_text_embed)\b", ONE),
        (r"\b(context_embedder|add_\w_proj|to_add_out|ff_context)\b", "prompt"),
        (r"\bsingle_transformer_blocks\b", "joint"),
        ("", "image"),
    ),
    stacks=_joint_stacks,
)

DENOISERS: Mapping[str, Kind] = {
    "UNet2DConditionModel": Kind(lengths=_unet_lengths, rows=_UNET_ROWS, stacks=_unet_stacks),
    "FluxTransformer2DModel": _JOINT,
    "SD3Transformer2DModel": _JOINT,
}
"""Class of diffusers -> its kind."""
