"""A config of diffusers, such as a UNet's or a DiT's: its own class, on the meta device."""

import importlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from zero_sizer.errors import InputError, UnsupportedError
from zero_sizer.models.sources.advice import without_advice
from zero_sizer.models.sources.untrusted import harmless, offline
from zero_sizer.models.spec import ModelSpec
from zero_sizer.units import DType
from zero_sizer.util.spelling import shown

CLASS = "_class_name"


def load_with_diffusers(raw: Mapping[str, Any], *, name: str, path: Path) -> ModelSpec:
    """The model of config ``raw``, built by an installed diffusers without weights.

    Raises:
        InputError: diffusers refuses the config.
        UnsupportedError: diffusers is not installed or has no such model.
    """
    torch: Any = importlib.import_module("torch") if _is_there("torch") else None
    if torch is None:
        raise UnsupportedError(
            f"{shown(raw[CLASS])} is a model of diffusers, which torch builds",
            remedy="pip install torch diffusers",
            where=str(path),
        )
    fields = harmless(raw, str(path))
    without_advice()  # diffusers imports bitsandbytes
    with offline(), torch.device("meta"):
        module = build(fields, where=str(path))
    from zero_sizer.models.sources.torch_module import spec_from_module

    diffusers: Any = importlib.import_module("diffusers")
    origin = f"{path} ({type(module).__name__} of diffusers {diffusers.__version__})"
    spec = spec_from_module(module, name=name, origin=origin, own_dtype=DType.FP32)
    arch = replace(spec.arch, family=str(raw[CLASS]))
    return replace(spec, hf_config=dict(raw), arch=arch)


def is_diffusers(fields: Mapping[str, Any]) -> bool:
    """True if a config is one of diffusers."""
    return isinstance(fields.get(CLASS), str) and not fields.get("model_type")


def build(fields: Mapping[str, Any], *, where: str = "") -> Any:
    """The module of a config's fields, on the default device.

    Raises:
        InputError: diffusers refuses the config.
        UnsupportedError: diffusers is not installed or has no such model.
    """
    named = str(fields[CLASS])
    if not _is_there("diffusers"):
        raise UnsupportedError(
            f"{shown(named)} is a model of diffusers, which is not installed",
            remedy="pip install diffusers",
            where=where,
        )
    diffusers: Any = importlib.import_module("diffusers")
    found = getattr(diffusers, named, None) if named.isidentifier() else None
    if not (isinstance(found, type) and issubclass(found, diffusers.ModelMixin)):
        raise UnsupportedError(
            f"diffusers {diffusers.__version__} has no model {shown(named)}", where=where
        )
    try:
        return found.from_config(dict(fields))  # type: ignore[attr-defined]  # of ConfigMixin
    except Exception as error:  # a constructor may raise anything over a wrong value
        text = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(f"diffusers refuses it: {text}", where=where) from error


def _is_there(package: str) -> bool:
    from importlib.util import find_spec

    return find_spec(package) is not None
