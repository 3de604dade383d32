"""Which kind each layer of a decoder is, where a config tells layers apart."""

from collections.abc import Mapping
from typing import Any

from zero_sizer.errors import InputError

Fields = Mapping[str, Any]
FULL, SLIDING, CHUNKED, LINEAR = (
    "full_attention",
    "sliding_attention",
    "chunked_attention",
    "linear_attention",
)
_NOPE_EVERY = 4
# Of families whose config classes fill in ``layer_types``: the other kind, and which layer is full.
_EVERY: Mapping[str, tuple[str, str, int]] = {
    "gemma3_text": (SLIDING, "sliding_window_pattern", 6),
    "gpt_oss": (SLIDING, "", 2),
    "olmo3": (SLIDING, "", 4),
    "qwen3_next": (LINEAR, "full_attention_interval", 4),
}
_SOME_UNROTATED = ("llama4_text", "smollm3")


def attention_kinds(fields: Fields, where: str = "") -> tuple[str, ...]:
    """Kind of attention of each layer, by ``layer_types`` or by the config class's own rule.

    Raises:
        InputError: a list is none, or shorter than there are layers.
    """
    family = str(fields.get("model_type", ""))
    count: int = fields["num_hidden_layers"]
    named = _listed(fields, "layer_types", str, where)
    if named is not None:
        return tuple(named)
    if family == "llama4_text":
        return tuple(CHUNKED if on else FULL for on in rotated_layers(fields, where))
    if family == "smollm3" and fields.get("use_sliding_window") and fields.get("sliding_window"):
        return tuple(FULL if on else SLIDING for on in rotated_layers(fields, where))
    if family not in _EVERY:
        return (FULL,) * count
    other, key, usual = _EVERY[family]
    every = _step(fields, key, usual, where) if key else usual
    return tuple(other if (index + 1) % every else FULL for index in range(count))


def rotated_layers(fields: Fields, where: str = "") -> tuple[bool, ...]:
    """Which layers rotate queries and keys: all, but for the families that leave some out.

    Raises:
        InputError: a list is none, or shorter than there are layers.
    """
    count: int = fields["num_hidden_layers"]
    if fields.get("model_type") not in _SOME_UNROTATED:
        return (True,) * count
    said = _listed(fields, "no_rope_layers", int, where)
    if said:
        return tuple(map(bool, said))
    every = _step(fields, "no_rope_layer_interval", _NOPE_EVERY, where)
    return tuple((index + 1) % every != 0 for index in range(count))


def sparse_layers(fields: Fields, where: str = "") -> frozenset[int]:
    """Layers of Llama 4 that have experts.

    Raises:
        InputError: a list is none.
    """
    count, named = fields["num_hidden_layers"], fields.get("moe_layers")
    if named is not None:
        if not isinstance(named, list) or not all(type(index) is int for index in named):
            raise InputError(f"moe_layers is {named!r}, not a list of layers", where=where)
        return frozenset(named)
    step = _step(fields, "interleave_moe_layer_step", 1, where)
    return frozenset(range(step - 1, count, step))


def _listed(fields: Fields, key: str, of: type, where: str) -> list[Any] | None:
    values, count = fields.get(key), fields["num_hidden_layers"]
    if values is None:
        return None
    if not isinstance(values, list | tuple) or not all(isinstance(value, of) for value in values):
        raise InputError(f"{key} is {values!r}, not a list with one for each layer", where=where)
    if values and len(values) < count:
        raise InputError(f"{key} has {len(values)} of {count} layers", where=where)
    return list(values)[:count]


def _step(fields: Fields, key: str, usual: int, where: str) -> int:
    step = fields.get(key)
    if step is None:
        return usual
    if type(step) is not int or step < 1:
        raise InputError(f"{key} is {step!r}, not a whole number from 1", where=where)
    return step
