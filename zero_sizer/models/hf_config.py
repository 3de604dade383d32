"""A Hugging Face config.json, read without torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zero_sizer.errors import UnsupportedError
from zero_sizer.models.spec import Architecture, ModelSpec


@dataclass(frozen=True, kw_only=True)
class ConfigFields:
    """A config with its family's defaults filled in."""

    arch: Architecture
    values: Mapping[str, Any]


def read_config(path: Path) -> ConfigFields:
    """Fields and widths of the config at ``path``."""
    raise UnsupportedError("config.json is not read yet", where=str(path))


def load_hf_config(path: Path) -> ModelSpec:
    """The model that the config at ``path`` describes."""
    raise UnsupportedError("config.json is not read yet", where=str(path))
