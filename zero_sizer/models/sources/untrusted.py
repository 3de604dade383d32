"""A config.json that others wrote, on its way to transformers: no code, no network, no end of it.

transformers reads more of a config than its shapes: ``auto_map`` names Python files,
``attn_implementation: org/name`` a kernel to download and run, ``backbone: org/name`` weights.
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from zero_sizer.errors import InputError
from zero_sizer.models.spec import MAX_LAYERS
from zero_sizer.util.environment import environment
from zero_sizer.util.spelling import shown

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_TRUST_REMOTE_CODE": "0",
}
"""Environment in which Hugging Face's libraries look for nothing that is not on disk."""

_NOT_HANDED_OVER = frozenset(
    {
        "auto_map",
        "trust_remote_code",
        "attn_implementation",
        "_attn_implementation",
        "_attn_implementation_internal",
        "experts_implementation",
        "_experts_implementation",
        "_experts_implementation_internal",
        "use_kernels",
        "custom_pipelines",
    }
)
_MAX_DEPTH = 16
_MAX_WIDTH = 10**9
_MAX_EXPERTS = 4_096


def harmless(fields: Mapping[str, Any], where: str) -> dict[str, Any]:
    """``fields`` without what would run or fetch something, sizes in bounds.

    Raises:
        InputError: nested too deeply, or more layers, experts or width than any model has.
    """
    return {
        key: _value(key, fields[key], where, 1) for key in fields if key not in _NOT_HANDED_OVER
    }


def _value(key: str, value: Any, where: str, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise InputError("is nested too deeply", where=where)
    if isinstance(value, Mapping):
        kept = {name: item for name, item in value.items() if name not in _NOT_HANDED_OVER}
        return {name: _value(name, item, where, depth + 1) for name, item in kept.items()}
    if isinstance(value, list):
        _require_most(key, len(value), MAX_LAYERS * 64, where)
        return [_value(key, item, where, depth + 1) for item in value]
    if isinstance(value, int) and not isinstance(value, bool):
        _require_most(key, abs(value), _most(key), where)
    return value


def _most(key: str) -> int:
    """What a field may be, by its name: how many modules it makes, or how wide."""
    if any(word in key for word in ("layer", "depth", "num_blocks", "num_stages", "hidden_dims")):
        return MAX_LAYERS if "token" not in key and "idx" not in key else _MAX_WIDTH
    return _MAX_EXPERTS if key.startswith("num_") and "expert" in key else _MAX_WIDTH


def _require_most(key: str, value: int, most: int, where: str) -> None:
    if value > most:
        raise InputError(f"{shown(key)} is above {most:,}", where=where)


@contextmanager
def offline() -> Iterator[None]:
    """Inside, Hugging Face's libraries reach no network, whether they are imported yet or not."""
    with environment(OFFLINE) as before:
        constants = sys.modules.get("huggingface_hub.constants")
        was_offline = getattr(constants, "HF_HUB_OFFLINE", None)
        if constants is not None:  # read when it was imported
            constants.HF_HUB_OFFLINE = True  # type: ignore[attr-defined]
        try:
            yield
        finally:
            asked = before["HF_HUB_OFFLINE"] or before["TRANSFORMERS_OFFLINE"]
            _restore(was_offline, asked)


def _restore(was_offline: bool | None, asked: str | None) -> None:
    """The library's own switch as it was; where it was imported inside, as the environment says."""
    constants: Any = sys.modules.get("huggingface_hub.constants")
    if constants is not None:
        is_asked = (asked or "").upper() in ("1", "ON", "YES", "TRUE")
        constants.HF_HUB_OFFLINE = is_asked if was_offline is None else was_offline
