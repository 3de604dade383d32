"""Profiles of families: the coefficients are polynomials of the model's widths.

Models whose forward and backward run the same operators differ in the sizes of their tensors alone,
and every size is a product of batch, sequence and widths. So a family traced at a few widths
(``zero_sizer.tracing.family``) tells what any model of the same structure holds.

A document is a profile's (``zero_sizer.activations``), but for ``products`` (of widths), ``unit``,
``rounded`` (sizes that only widths change, each rounded up: lists of [product, coefficient x unit])
and ``polynomials``: lists of [monomial of batch and sequence, product, coefficient x unit], or of
[6, which of ``rounded``, how many]; the monomial b*b is number 7.
"""

import json
import re
from collections.abc import Mapping
from functools import cache, lru_cache
from math import prod
from pathlib import Path
from typing import Any

from zero_sizer.activations import kinds, ranges
from zero_sizer.activations.levels import depths_of
from zero_sizer.activations.profile import Profile
from zero_sizer.errors import InputError
from zero_sizer.models.feeds.records import Feed
from zero_sizer.models.spec import ModelSpec
from zero_sizer.units import round_up
from zero_sizer.util.identity import Identity

_DATA = Path(__file__).parent / "data"
PREFIX = "family."
FED = "fed."  # families that are fed more than tokens
_HEAD_STEP = 8
MONOMIALS = 7  # (b*s, 1, s, b, s*s, b*s*s, b*b), as in a profile
_CONSTANT = 1  # which of them
_ROUNDED = 6  # in a family's, where b*b is the one behind it
_BYTES = 512  # what torch rounds up to

# What decides which operators run, beside the names of the tensors.
_WORDS = (
    "alibi",
    "attention_bias",
    "do_layer_norm_before",
    "feed_forward_proj",
    "multi_query",
    "new_decoder_architecture",
    "parallel_attn",
    "qk_layernorm",
    "use_parallel_residual",
)
ACTIVATION = ("hidden_activation", "hidden_act", "activation_function")
_ROTATED = ("partial_rotary_factor", "rotary_pct")
_RATES = (
    "attention_dropout",
    "attention_probs_dropout_prob",
    "attn_pdrop",
    "dropout",
    "dropout_rate",
    "embd_pdrop",
    "embedding_dropout",
    "hidden_dropout",
    "hidden_dropout_prob",
    "resid_pdrop",
    "residual_dropout",
)
FAMILIES = frozenset(
    {
        "bert",
        "bloom",
        "falcon",
        "gemma",
        "gemma2",
        "glm4",
        "gpt2",
        "gpt_neox",
        "granite",
        "granitemoehybrid",
        "llama",
        "mistral",
        "mixtral",
        "olmo2",
        "opt",
        "phi",
        "phi3",
        "qwen2",
        "qwen3",
        "qwen3_moe",
        "seed_oss",
        "stablelm",
        "starcoder2",
        "t5",
    }
)
_WINDOWED = (
    *("gemma2", "mistral", "mixtral", "phi3", "qwen2", "qwen3", "qwen3_moe"),
    *("gemma3_text", "gpt_oss", "llama4_text", "olmo3", "starcoder2"),
)
_TWO_STACKS = ("t5",)  # an encoder and a decoder, each of any depth
_SAME_CLASS = {"T5WithLMHeadModel": "T5ForConditionalGeneration"}  # the hub's older name
LEARNED_POSITIONS = ("bert", "gpt2", "opt")
_LLAMA: Mapping[str, Any] = {"architectures": ["LlamaForCausalLM"]} | dict(kinds.PLAIN)
"""What numbers that only a Llama has leave open (``models.numbers``)."""
_NUMBERED = re.compile(r"\.(\d+)\.")


def structure_of(spec: ModelSpec, feed: Feed | None = None) -> str | None:
    """Structure that models share; None where widths are not all that may differ.

    Blocks may differ in the families of ``kinds`` alone. Adapters, packed weights and frozen
    tensors are left out.
    """
    if feed is not None:
        return _structure_of_fed(spec, feed)
    usual = kinds.USUAL.get(spec.arch.family, {})
    fields = {**usual, **(spec.hf_config if spec.exact_tensors else _LLAMA)}
    asked = {*_WORDS, *usual} - {*ACTIVATION, *_RATES}
    is_mixed = spec.arch.family in kinds.FAMILIES
    if not (is_mixed or spec.arch.family in FAMILIES) or spec.base is not None:
        return None
    names = kinds.names_outside(spec) if is_mixed else _names(spec)
    layers = _kinds(spec) if is_mixed else _layers(spec, fields.get("layer_types"))
    if names is None or layers is None or not all(t.trainable for t in spec.parameters):
        return None
    heads, kv_heads = spec.arch.heads, spec.arch.kv_heads
    named = (fields.get("architectures") or [_head(spec.arch.family)])[0]
    said = {
        "family": spec.arch.family,
        "class": _SAME_CLASS.get(named, named),
        "activation": next((fields[key] for key in ACTIVATION if fields.get(key)), ""),
        "rotated": rotated_share(fields, spec.arch.family),
        "words": {key: fields[key] for key in asked if fields.get(key) is not None},
        "drops": [key for key in _RATES if fields.get(key)],
        "kv_heads": _kv_heads({"heads": heads, "kv_heads": kv_heads}),
        "window": window_of(spec) is not None,
        "layers": layers,
        "experts": bool(spec.arch.num_experts),
        "names": names,
    }
    if is_mixed:
        said["words"].update(kinds.words_of(spec))
        said["values"] = _values(fields.get("v_head_dim"), spec.arch.head_dim)
    return json.dumps(said, sort_keys=True, default=str)


def _structure_of_fed(spec: ModelSpec, feed: Feed) -> str | None:
    """Structure of a model that is fed more than tokens; lengths of inputs are widths, too."""
    from zero_sizer.models import stacked  # most models are fed tokens alone

    fields = spec.hf_config
    row = stacked.row_of(fields)
    if row is None or spec.base is not None or not spec.exact_tensors:
        return None
    named = (fields.get("architectures") or row.heads)[0]
    words = stacked.words_of(fields)
    names = _starred(spec)
    if named not in row.heads or words is None or names is None:
        return None
    if not stacked.has_usual_order(fields):
        return None
    said = {
        "family": spec.arch.family,
        "class": named,
        "words": words,
        "kv_heads": _kv_heads({**(stacked.widths_of(fields, feed) or {})}),
        "inputs": [given.name for given in feed.inputs],
        "names": names,
        "frozen": sorted(t.name for t in spec.parameters if not t.trainable),
    }
    if row.followed:
        said["followed"] = {k: len(of) for k, of in stacked.followed_of(fields).items()}
    return json.dumps(said, sort_keys=True, default=str)


def _kv_heads(widths: Mapping[str, int | None]) -> str:
    heads, kv_heads = widths.get("heads"), widths.get("kv_heads")
    return "all" if kv_heads in (heads, None) else "one" if kv_heads == 1 else "some"


def _starred(spec: ModelSpec) -> list[str] | None:
    """Names with ``*`` for a block's number; None where blocks of one list differ."""
    counts: dict[str, int] = {}
    for tensor in spec.parameters:
        name = _NUMBERED.sub(".*.", tensor.name, count=1)
        counts[name] = counts.get(name, 0) + 1
    of_lists: dict[str, set[int]] = {}
    for name, count in counts.items():
        of_lists.setdefault(name.partition(".*.")[0], set()).add(count)
    return sorted(counts) if all(len(found) == 1 for found in of_lists.values()) else None


def window_of(spec: ModelSpec) -> int | None:
    """Tokens of a window of attention, where the config has one that is on."""
    fields = spec.hf_config
    if spec.arch.family not in _WINDOWED or fields.get("use_sliding_window") is False:
        return None
    window = fields.get("sliding_window") or fields.get("attention_chunk_size")
    return window if isinstance(window, int) and window > 0 else None


def rotated_share(fields: Mapping[str, Any], family: str) -> Any:
    """Share of a head that is rotated, wherever a config says it; checked elsewhere."""
    rope = fields.get("rope_parameters") or fields.get("rope_scaling")
    places = (rope if isinstance(rope, Mapping) else {}, fields)
    said = [place[key] for place in places for key in _ROTATED if place.get(key) is not None]
    share = said[0] if said else kinds.ROTATED.get(family, 1.0)
    return float(share) if isinstance(share, int) else share


def _head(family: str) -> str:
    """The class where a config names none."""
    from zero_sizer.models.layouts.families import FAMILIES as LAYOUTS

    return kinds.HEADS.get(family) or LAYOUTS[family].head


def _layers(spec: ModelSpec, layer_types: Any) -> str | None:
    """Which layers look through a window; None where they are told apart in another way."""
    if layer_types is None:
        return "alternating" if spec.arch.family == "gemma2" else "alike"
    if not isinstance(layer_types, list) or not layer_types:
        return None
    slides = [str(kind).startswith("sliding") for kind in layer_types]
    if len(set(map(str, layer_types))) == 1:
        return "alike"
    return "alternating" if slides == [i % 2 == 0 for i in range(len(slides))] else None


def _values(width: Any, head_dim: int | None) -> str:
    """How wide values are beside queries: kernels pad narrower ones."""
    if not isinstance(width, int) or head_dim is None or width == head_dim:
        return "alike"
    return "narrower" if width < head_dim else "wider"


def _kinds(spec: ModelSpec) -> list[Any] | None:
    """Kinds of blocks in the order in which they run; None where the config cannot say."""
    try:
        return [list(kind) for kind in kinds.kinds_of(spec).said] or None
    except (InputError, KeyError, IndexError):
        return None


def _names(spec: ModelSpec) -> list[str] | None:
    """Names with ``*`` for a block's number; None where blocks differ.

    Of T5's the first of each stack has a table of relative positions, for all of them.
    """
    counts: dict[str, int] = {}
    for tensor in spec.parameters:
        name = _NUMBERED.sub(".*.", tensor.name, count=1)
        counts[name] = counts.get(name, 0) + 1
    arch = spec.arch
    two = (arch.num_layers, arch.decoder_layers, 1) if arch.family in _TWO_STACKS else ()
    repeated = {count for name, count in counts.items() if ".*." in name}
    return sorted(counts) if len(repeated) == 1 or repeated <= {*two} else None


def widths_of(spec: ModelSpec) -> dict[str, int]:
    """The widths that products name."""
    arch = spec.arch
    heads, head_dim = arch.heads or 0, arch.head_dim or 0
    own = kinds.widths_of(spec) if arch.family in kinds.FAMILIES else {}
    return {
        **own,
        "hidden": arch.hidden or 0,
        "ffn": arch.ffn or 4 * (arch.hidden or 0),
        "heads": heads,
        "kv_heads": arch.kv_heads or heads,
        "head_dim": head_dim,
        "vocab": arch.vocab or 0,
        "positions": (arch.max_positions or 0) if arch.family in LEARNED_POSITIONS else 0,
        "experts": arch.num_experts,
        "experts_per_token": arch.experts_per_token,
        "expert_ffn": arch.expert_ffn or arch.ffn or 0,
        "window": window_of(spec) or 0,
        "window_before": (window_of(spec) or 1) - 1,
    }


def load(spec: ModelSpec, feed: Feed | None = None) -> Profile | None:
    """The profile of ``spec`` by its family; None where none was traced.

    Args:
        spec: the model.
        feed: what a sample brings; None: token ids and labels.
    """
    return _load(Identity(spec), Identity(feed))


@lru_cache(maxsize=64)
def _load(identity: Identity, fed: Identity) -> Profile | None:
    spec: ModelSpec = identity.of
    feed: Feed | None = fed.of
    structure = structure_of(spec, feed)
    prefix = PREFIX if feed is None else FED
    name = _index(prefix).get(structure) if structure is not None else None
    if name is None:
        return None
    document = specialised(_document(f"{prefix}{name}"), spec, feed)
    return Profile(document) if document is not None else None


@cache
def _index(prefix: str) -> dict[str, str]:
    """Structure -> file."""
    try:
        index: dict[str, str] = json.loads((_DATA / f"{prefix}index.json").read_text("utf-8"))
    except FileNotFoundError:
        return {}
    return index


def _document(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((_DATA / f"{name}.json").read_text("utf-8"))
    return document


def specialised(
    document: Mapping[str, Any], spec: ModelSpec, feed: Feed | None = None
) -> dict[str, Any] | None:
    """A family's profile at the widths of ``spec``; None where a size would be no whole number."""
    widths = widths_of(spec) if feed is None else _widths_of_fed(spec, feed)
    if widths is None or not _has_traced_proportions(document, widths):
        return None
    values = [prod(widths[name] for name in product) for product in document["products"]]
    unit = document["unit"]
    rounded = [
        round_up(sum(c * values[p] for p, c in terms) // unit, _BYTES) * unit
        for terms in document["rounded"]
    ]
    polynomials = []
    for terms in document["polynomials"]:
        row = [0] * MONOMIALS
        for monomial, index, coefficient in terms:
            if monomial == _ROUNDED:
                row[_CONSTANT] += coefficient * rounded[index]
            else:
                row[min(monomial, MONOMIALS - 1)] += coefficient * values[index]
        if any(value % unit for value in row):
            return None
        polynomials.append([value // unit for value in row])
    window = window_of(spec) if feed is None else None
    found = {
        **document,
        "name": f"{spec.name}, by its family",
        "polynomials": polynomials,
        "stacks": [_stack(spec, stack, feed) for stack in document["stacks"]],
    }
    if feed is not None or window is not None:
        found["setups"] = [
            {**setup, "fits": list(ranges.own(setup["fits"], document, window, feed))}
            for setup in document["setups"]
        ]
    return found


def _widths_of_fed(spec: ModelSpec, feed: Feed) -> Mapping[str, int] | None:
    from zero_sizer.models import stacked

    return stacked.widths_of(spec.hf_config, feed)


def _stack(spec: ModelSpec, stack: Mapping[str, Any], feed: Feed | None) -> dict[str, Any]:
    """A stack as deep as the model's, of its kinds of blocks where they differ."""
    row = _row(spec, stack, feed) if "kinds" in stack else {}
    return {**stack, **row, "depth": _depth(spec, stack, feed)}


def _row(spec: ModelSpec, stack: Mapping[str, Any], feed: Feed | None) -> dict[str, Any]:
    """Kinds of a model's blocks, and those after which something runs outside of them."""
    if feed is None:
        return {"row": kinds.kinds_of(spec).row}
    from zero_sizer.models import stacked

    blocks = stack["blocks"]
    if "followed" not in stack:
        return {"row": stacked.kinds_of(spec.hf_config)[blocks]}
    found = stacked.followed_of(spec.hf_config)[blocks]
    depth = _depth(spec, stack, feed) or 0
    return {"followed": found, "row": kinds.followed_kinds(found, depth)}


def _depth(spec: ModelSpec, stack: Mapping[str, Any], feed: Feed | None) -> int | None:
    """Blocks of a stack; an encoder-decoder's decoder has a number of its own."""
    if feed is not None:
        return depths_of(spec, [stack["blocks"]])[stack["blocks"]]
    is_decoder = spec.arch.decoder_layers and str(stack["blocks"]).startswith("decoder")
    return spec.arch.decoder_layers if is_decoder else spec.arch.num_layers


def _has_traced_proportions(document: Mapping[str, Any], widths: Mapping[str, int]) -> bool:
    """What was alike at all widths traced: kernels pad heads to eights, some heads fill hidden."""
    fills = widths["heads"] * widths["head_dim"] == widths["hidden"]
    ends = ("head_dim", "rope", "value_dim")
    heads = [size for name, size in widths.items() if name.endswith(ends)]
    is_padded = any(size % _HEAD_STEP for size in heads)
    return not is_padded and (document["has_free_head_dim"] or fills)
