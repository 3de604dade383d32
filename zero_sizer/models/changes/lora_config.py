"""A LoRA adapter as peft's ``adapter_config.json`` describes it, and where it may be named."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from zero_sizer.errors import InputError, UnsupportedError
from zero_sizer.models.changes.records import ALL_LINEAR, Adapter
from zero_sizer.util.files import existing
from zero_sizer.util.spelling import did_you_mean, shown

FILE = "adapter_config.json"
_MAX_RANK = 2**20
_MAX_NAMES = 10_000  # modules, layers or ranks in one list
_MAX_PATTERNS = 100  # names in a list that peft makes regular expressions of
_BIASES = ("none", "all", "lora_only")
_SHORT = {"targets": "target_modules", "dropout": "lora_dropout", "save": "modules_to_save",
          "exclude": "exclude_modules", "alpha": "lora_alpha", "layers": "layers_to_transform",
          "dora": "use_dora"}  # fmt: skip
# Heads that peft trains whole for a task (peft_model.py:1830, 2680, 2915).
_HEADS = {
    "SEQ_CLS": ("classifier", "score"),
    "TOKEN_CLS": ("classifier", "score"),
    "QUESTION_ANS": ("qa_outputs",),
}
# What changes no shape, no dtype and no operator.
_NO_MATTER = frozenset(
    {
        "alpha_pattern",
        "auto_mapping",
        "base_model_name_or_path",
        "corda_config",
        "eva_config",
        "fan_in_fan_out",
        "inference_mode",
        "init_lora_weights",
        "loftq_config",
        "lora_ga_config",
        "megatron_core",
        "peft_type",
        "peft_version",
        "qalora_group_size",
        "revision",
        "runtime_config",
        "task_type",
        "use_rslora",
    }
)


def read(reference: str, where: str) -> Adapter:
    """The adapter that ``reference`` names: a path, or ``r=16,targets=q_proj+v_proj``.

    Args:
        reference: an ``adapter_config.json``, its folder, or settings; lists are joined by ``+``.
        where: flag or line, for errors.

    Raises:
        InputError: nothing there, or a value is wrong.
        UnsupportedError: another kind of adapter than LoRA, or an option that is not modelled.
    """
    path = existing(reference)
    if path is not None and path.is_dir():
        path = existing(str(path / FILE))
    if path is not None:
        from zero_sizer.models.sources.config_file import read_json

        return from_fields(read_json(path), str(path))
    if "=" not in reference:
        raise InputError(
            f"there is no adapter {shown(reference)}",
            remedy="name an adapter_config.json, its folder, or r=16,targets=all-linear",
            where=where,
        )
    return from_fields(_settings(reference, where), where)


def _settings(text: str, where: str) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for part in text.split(","):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        name = _SHORT.get(key, key)
        if not equals or not key or name in fields:
            raise InputError(
                f"{shown(part.strip())} is not one more setting of an adapter",
                remedy="between names write +: targets=q_proj+v_proj" if not equals else "",
                where=where,
            )
        fields[name] = _value(name, value)
    return fields


def _value(name: str, text: str) -> Any:
    """A list where the field is one, else a number or word."""
    if name in ("target_modules", "modules_to_save", "exclude_modules", "layers_pattern"):
        return text if text == ALL_LINEAR else [part.strip() for part in text.split("+")]
    if name == "layers_to_transform":
        return [int(part[:9]) if part.isdecimal() else part for part in text.split("+")]
    if text in ("true", "false"):
        return text == "true"
    try:
        number = float(text)
    except ValueError:
        return text
    return int(number) if number.is_integer() and text.isdecimal() else number


def from_fields(fields: Mapping[str, Any], where: str) -> Adapter:
    """The adapter of an ``adapter_config.json``'s fields.

    Raises:
        InputError: a value is wrong.
        UnsupportedError: another kind of adapter than LoRA, or an option that is not modelled.
    """
    kind = fields.get("peft_type", "LORA")
    if kind != "LORA":
        raise UnsupportedError(f"peft_type {shown(kind)} is not modelled, LoRA is", where=where)
    _refuse_unknown(fields, where)
    values: dict[str, Any] = {"origin": where}
    for name, check in _CHECKS.items():
        value = fields.get(name)
        if value is not None:
            values[name] = _checked(name, check, value, where)
    _refuse_layers(values, where)
    heads = _HEADS.get(str(fields.get("task_type")), ())
    values["modules_to_save"] = (*values.get("modules_to_save", ()), *heads)
    return Adapter(**values)


def _refuse_layers(values: Mapping[str, Any], where: str) -> None:
    """peft's LoraConfig.__post_init__."""
    layers, pattern = values.get("layers_to_transform"), values.get("layers_pattern")
    if (layers or pattern) and isinstance(values.get("target_modules"), str):
        raise InputError(
            "layers_to_transform and layers_pattern need target_modules as a list", where=where
        )
    if pattern and not layers:
        raise InputError("layers_pattern needs layers_to_transform", where=where)


def _refuse_unknown(fields: Mapping[str, Any], where: str) -> None:
    for name, value in fields.items():
        if name in _CHECKS or name in _NO_MATTER or not value:
            continue
        if name in _NOT_MODELLED:
            raise UnsupportedError(
                f"{name} is not modelled",
                remedy="let a module:factory return the peft model",
                where=where,
            )
        raise InputError(
            f"{shown(name)} is no field of a LoRA adapter",
            remedy=did_you_mean(name, _CHECKS) or f"known: {', '.join(_CHECKS)}",
            where=where,
        )


def _checked(name: str, check: Callable[[Any], Any], value: Any, where: str) -> Any:
    try:
        return check(value)
    except ValueError as error:
        raise InputError(f"{name}: {error}", where=where) from None


def _names(value: Any) -> tuple[str, ...]:
    if isinstance(value, list | tuple) and all(isinstance(item, str) and item for item in value):
        names = tuple(dict.fromkeys(value))
        _require_few(names, _MAX_NAMES)
        return names
    raise ValueError(f"{shown(value)} is not a list of module names")


def _require_few(items: Collection[Any], most: int) -> None:
    if len(items) > most:
        raise ValueError(f"holds {len(items):,} entries; at most {most:,} are read")


def _names_or_pattern(value: Any) -> tuple[str, ...] | str:
    if not isinstance(value, str):
        return tuple(sorted(_names(value)))  # a set in peft: its order means nothing
    require_pattern(value)
    return ALL_LINEAR if value.lower() == ALL_LINEAR else value


def require_pattern(value: str) -> None:
    """Raises ValueError where ``value`` is no regular expression."""
    from zero_sizer.util.patterns import Pattern, PatternError

    try:
        Pattern(value)
    except PatternError as error:
        raise ValueError(f"{shown(value)} {error}") from None


def _patterns(value: Any) -> tuple[str, ...]:
    """Names that peft puts into regular expressions."""
    names = (value,) if isinstance(value, str) else _names(value)
    _require_few(names, _MAX_PATTERNS)
    for name in names:
        require_pattern(name)
    return names


def _indices(value: Any) -> tuple[int, ...]:
    items = value if isinstance(value, list) else [value]
    _require_few(items, _MAX_NAMES)
    if all(type(item) is int and item >= 0 for item in items):
        return tuple(items)
    raise ValueError(f"{shown(value)} is not a list of layer numbers")


def _rank(value: Any) -> int:
    if type(value) is int and 1 <= value <= _MAX_RANK:
        return value
    raise ValueError(f"{shown(value)} is not a whole number from 1 to {_MAX_RANK:,}")


def _ranks(value: Any) -> dict[str, int]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{shown(value)} is not a mapping from names to ranks")
    _require_few(value, _MAX_NAMES)
    return {str(_names_or_pattern(str(key))): _rank(rank) for key, rank in value.items()}


def _bias(value: Any) -> str:
    if value in _BIASES:
        return str(value)
    raise ValueError(f"{shown(value)} is not one of {', '.join(_BIASES)}")


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError(f"{shown(value)} is not true or false")


def _number(value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1e9:
        return value
    raise ValueError(f"{shown(value)} is not a number above 0")


def _probability(value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1:
        return float(value)
    raise ValueError(f"{shown(value)} is not a number from 0 to below 1")


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "r": _rank,
    "target_modules": _names_or_pattern,
    "exclude_modules": _names_or_pattern,
    "layers_to_transform": _indices,
    "layers_pattern": _patterns,
    "rank_pattern": _ranks,
    "modules_to_save": _patterns,
    "bias": _bias,
    "lora_bias": _flag,
    "lora_alpha": _number,
    "lora_dropout": _probability,
    "use_dora": _flag,
}
_NOT_MODELLED = frozenset(
    {
        "alora_invocation_tokens",
        "arrow_config",
        "ensure_weight_tying",
        "kasa_config",
        "layer_replication",
        "megatron_config",
        "monteclora_config",
        "target_parameters",
        "trainable_token_indices",
        "use_bdlora",
        "use_qalora",
        "velora_config",
    }
)
