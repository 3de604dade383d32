"""Keys and values that ``generate`` keeps, layer by layer: transformers' caches, in elements.

Follows transformers 5.23, cache_utils.py: ``DynamicLayer`` (:104) and ``DynamicSlidingWindowLayer``
(:196), which concatenate, and ``StaticLayer`` (:403) and ``StaticSlidingWindowLayer`` (:510), which
allocate their longest at once. Multi-head latent attention (DeepSeek) keeps the latent and the
rotated part (modeling_deepseek_v3.py:459).
"""

from functools import lru_cache
from typing import NamedTuple

from zero_sizer.models.spec import ModelSpec
from zero_sizer.util.identity import Identity

_WINDOWED = frozenset(
    {"gemma2", "gemma3_text", "mistral", "mixtral", "phi3", "qwen2", "qwen3", "qwen3_moe"}
)


class CacheLayer(NamedTuple):
    """Elements that one layer keeps of one token of one sequence.

    Attributes:
        key: of the keys, or of the latent.
        value: of the values, or of the rotated part.
        window: tokens that attention looks back through; None for all of them.
    """

    key: int
    value: int
    window: int | None


def layers_of(spec: ModelSpec) -> tuple[CacheLayer, ...]:
    """The layers of a decoder; empty where the model has no cache that is known here."""
    return _layers(Identity(spec.base or spec))


@lru_cache(maxsize=64)
def _layers(identity: Identity) -> tuple[CacheLayer, ...]:
    spec: ModelSpec = identity.of
    arch, fields = spec.arch, spec.hf_config
    heads, width = arch.kv_heads or arch.heads or 0, arch.head_dim or 0
    if arch.decoder_layers or not arch.num_layers or not heads * width or arch.family == "bert":
        return ()
    if arch.family == "falcon":  # modeling_falcon.py, _split_heads: repeated before it is kept
        is_one = fields.get("multi_query") and not fields.get("new_decoder_architecture")
        heads = 1 if is_one else arch.heads or heads
    key = value = heads * width
    if fields.get("kv_lora_rank"):
        key, value = int(fields["kv_lora_rank"]), int(fields["qk_rope_head_dim"])
    window = _window(spec)
    kinds = fields.get("layer_types")
    if window is None or not isinstance(kinds, list) or len(kinds) != arch.num_layers:
        slides = [window is not None and _slides(arch.family, i) for i in range(arch.num_layers)]
    else:
        slides = [str(kind).startswith("sliding") for kind in kinds]
    return tuple(CacheLayer(key, value, window if slide else None) for slide in slides)


def _slides(family: str, layer: int) -> bool:
    """Where a config lists no kinds: Gemma 2 alternates, of others every layer has the window."""
    return family != "gemma2" or layer % 2 == 0


def _window(spec: ModelSpec) -> int | None:
    fields = spec.hf_config
    if spec.arch.family not in _WINDOWED or fields.get("use_sliding_window") is False:
        return None
    found = fields.get("sliding_window")
    return found if isinstance(found, int) and not isinstance(found, bool) and found > 0 else None


def after_prefill(layer: CacheLayer, tokens: int) -> int:
    """Elements of a layer once ``tokens`` of a prompt were read.

    A window is a view of all of them until the next token (cache_utils.py:246).
    """
    return tokens * (layer.key + layer.value)


def while_decoding(layer: CacheLayer, tokens: int) -> int:
    """Elements of a layer once it has met ``tokens``, the last of them alone."""
    seen = tokens if layer.window is None else min(tokens, layer.window)
    return seen * (layer.key + layer.value)


def static(layer: CacheLayer, longest: int) -> int:
    """Elements of a layer that is allocated at once.

    Args:
        layer: which.
        longest: tokens of a prompt and all that follow, without the last.
    """
    return while_decoding(layer, longest)
