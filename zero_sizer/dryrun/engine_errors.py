"""Which config keys an engine's error message is about, for the reader who must change one."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from zero_sizer.errors import WitnessError

_SHORTEST_VALUE = 4  # letters; shorter values are words of any sentence
_MOST = 3
# Words of messages that say nothing to a reader, and what to do.
_REMEDIES: Mapping[str, str] = {
    "self.dim() cannot be 0 to view": (
        "DeepSpeed broadcasts parameters as bytes, and one has no dimensions (logit_scale of CLIP "
        "and SigLIP): before the engine is made, model.NAME = "
        "torch.nn.Parameter(model.NAME.detach().reshape(1)); under zero.Init, in the class"
    ),
    "Not enough buffers": (
        "weights on NVMe find no buffer: `zero-sizer check` says where, and how many "
        "zero_optimization.offload_param.buffer_count takes"
    ),
    "already assigned swap buffer id": (
        "a weight on NVMe is read ahead twice: `zero-sizer check` says where, and what "
        "zero_optimization.offload_param.buffer_count or stage3_prefetch_bucket_size runs"
    ),
}


def engine_error(message: str, config: Mapping[str, Any]) -> WitnessError:
    """The engine's message, with the keys of ``config`` that it names."""
    keys = keys_named(message, config)
    remedy = "in the config: " + ", ".join(keys[:_MOST]) if keys else ""
    return WitnessError(message, remedy=remedy_of(message) or remedy)


def remedy_of(message: str) -> str:
    """Remedy of an error that is known by its words; empty for others."""
    return next((remedy for words, remedy in _REMEDIES.items() if words in message), "")


def keys_named(message: str, config: Mapping[str, Any]) -> list[str]:
    """Dotted keys whose own name (of several words) or text value stands in the message."""
    words = {word.lower() for word in re.findall(r"\w+", message)}
    return [
        dotted
        for dotted, value in _leaves(config, "")
        if _name(dotted.rpartition(".")[2]) & words or _text(value) & words
    ]


def _name(name: str) -> set[str]:
    return {name.lower()} if "_" in name else set()


def _text(value: object) -> set[str]:
    is_long = isinstance(value, str) and len(value) >= _SHORTEST_VALUE
    return {str(value).lower()} if is_long else set()


def _leaves(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
