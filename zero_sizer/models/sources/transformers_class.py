"""A config of a family without a layout here: transformers' own class, on the meta device."""

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from zero_sizer.errors import InputError, ZeroSizerError
from zero_sizer.models.sources.config_file import unknown_family
from zero_sizer.models.sources.untrusted import harmless, offline
from zero_sizer.models.spec import ModelSpec
from zero_sizer.units import DType

_AUTO_CLASSES = (
    "AutoModelForCausalLM",
    "AutoModelForSeq2SeqLM",
    "AutoModelForImageTextToText",
    "AutoModelForMaskedLM",
    "AutoModel",
)


def load_with_transformers(
    raw: Mapping[str, Any], model_type: str, *, name: str, path: Path
) -> ModelSpec:
    """The model of config ``raw``, built by an installed transformers without weights.

    Only the fields are handed over, never the folder, so no code of its ``auto_map`` can run.

    Raises:
        InputError: transformers refuses the config.
        UnsupportedError: transformers is not installed or does not know the family or class.
    """
    fields = harmless(raw, str(path))
    with offline():
        return _load(raw, fields, model_type, name=name, path=path)


def _load(
    raw: Mapping[str, Any], fields: dict[str, Any], model_type: str, *, name: str, path: Path
) -> ModelSpec:
    try:
        transformers: Any = importlib.import_module("transformers")
        importlib.import_module("torch")
    except ImportError as error:
        raise unknown_family(
            model_type, path, auto_map=False, reason="transformers is not installed"
        ) from error
    auto_map = "auto_map" in raw
    if model_type not in transformers.CONFIG_MAPPING:
        reason = f"transformers {transformers.__version__} does not know it"
        raise unknown_family(model_type, path, auto_map=auto_map, reason=reason)
    for key in ("model_type", "dtype", "torch_dtype"):
        fields.pop(key, None)
    with only_errors(transformers):
        module = _build(transformers, model_type, fields, path)
    from zero_sizer.models.sources.torch_module import spec_from_module

    origin = f"{path} ({type(module).__name__} of transformers {transformers.__version__})"
    spec = spec_from_module(module, name=name, origin=origin, own_dtype=DType.BF16)
    dtype = raw.get("dtype", raw.get("torch_dtype"))
    return replace(spec, hf_config={**spec.hf_config, "dtype": dtype})


def _build(transformers: Any, model_type: str, fields: Mapping[str, Any], path: Path) -> Any:
    torch: Any = importlib.import_module("torch")
    try:
        config = transformers.AutoConfig.for_model(model_type, **fields)
        _require_hidden_size(config, fields, path)
        model_class = _model_class(transformers, config, fields.get("architectures"))
        if model_class is None:
            reason = "transformers has no class that trains it"
            raise unknown_family(model_type, path, auto_map=False, reason=reason)
        with torch.device("meta"):  # in bf16, so that tensors that keep another dtype show it
            return model_class._from_config(config, dtype=torch.bfloat16)
    except ZeroSizerError:
        raise
    except Exception as error:  # a config class may raise anything over a wrong value
        text = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(f"transformers refuses it: {text}", where=str(path)) from error


def _require_hidden_size(config: Any, fields: Mapping[str, Any], path: Path) -> None:
    """A file that leaves out the width is no model's; the class's default is another model."""
    own = config.attribute_map.get("hidden_size", "hidden_size")
    if hasattr(config, own) and not {own, "hidden_size", "text_config"} & fields.keys():
        raise InputError(f"{own} is missing", where=str(path))


@contextmanager
def only_errors(transformers: Any) -> Iterator[None]:
    """Keeps transformers' advice about tokens and the like off the terminal."""
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(before)


def _model_class(transformers: Any, config: Any, named: Any) -> Any:
    """The class that the config names, else the first head that fits its family."""
    if isinstance(named, list) and named:
        found = getattr(transformers, str(named[0]), None)
        if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel):
            return found
    for auto in _AUTO_CLASSES:
        mapping = getattr(transformers, auto)._model_mapping
        if type(config) in mapping:
            return mapping[type(config)]
    return None
