"""A Hugging Face config.json as a model: by our layouts, or by transformers' own class."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zero_sizer.errors import InputError
from zero_sizer.models.layouts.architecture import from_hf_config
from zero_sizer.models.layouts.families import FAMILIES, Family
from zero_sizer.models.layouts.language import expand
from zero_sizer.models.layouts.widths import widths_of
from zero_sizer.models.sources.config_file import (
    ACTIVATION_KEYS,
    config_defaults,
    read_json,
    resolve_fields,
)
from zero_sizer.models.spec import Architecture, ModelSpec, Tensor
from zero_sizer.util.records import dataclass
from zero_sizer.util.spelling import shown
from zero_sizer.util.terminal import one_line

_LONGEST_NAME = 200


@dataclass(frozen=True, kw_only=True)
class ConfigFields:
    """A config with its family's defaults filled in.

    Attributes:
        arch: its widths.
        values: every field, the family's names and the standard ones.
    """

    arch: Architecture
    values: Mapping[str, Any]


def read_config(path: Path) -> ConfigFields:
    """Widths and fields of the config at ``path``; of an unknown family, what it says itself.

    Raises:
        InputError: it cannot be read, or a value is wrong.
    """
    raw = read_json(path)
    model_type = _model_type(raw, str(path))
    _architectures(raw, str(path))
    values = resolve_fields(raw, model_type, str(path)) if model_type in FAMILIES else raw
    return ConfigFields(arch=_arch(values, model_type, str(path)), values=values)


def load_hf_config(path: Path) -> ModelSpec:
    """The model that the config.json at ``path`` describes.

    Nothing in its folder is run: ``auto_map`` is not followed.

    Raises:
        InputError: it is no config, or a value is wrong.
        UnsupportedError: its family is not known here, nor to an installed transformers.
    """
    raw = read_json(path)
    return spec_of_fields(raw, name=_name(raw, path), where=str(path))


def spec_of_fields(raw: Mapping[str, Any], *, name: str, where: str) -> ModelSpec:
    """The model that a config's fields describe.

    Raises:
        InputError: they are no config's, or a value is wrong.
        UnsupportedError: the family is not known here, nor to an installed transformers.
    """
    if isinstance(raw.get("_class_name"), str) and "model_type" not in raw:
        from zero_sizer.models.sources.diffusers_class import load_with_diffusers

        return load_with_diffusers(raw, name=name, path=Path(where))
    found = laid_out(raw, name=name, where=where)
    if found is not None:
        return found
    from zero_sizer.models.sources.transformers_class import load_with_transformers

    return load_with_transformers(raw, _model_type(raw, where), name=name, path=Path(where))


def laid_out(raw: Mapping[str, Any], *, name: str, where: str) -> ModelSpec | None:
    """The model by our own layouts; None where only transformers may know it.

    Raises:
        InputError: the fields are no config's, or a value is wrong.
    """
    model_type = _model_type(raw, where)
    head = _head(raw, model_type, where)
    if head is None:
        from zero_sizer.models.sources import stacked_config

        return stacked_config.laid_out(raw, name=name, where=where)
    family = FAMILIES[model_type]
    values = resolve_fields(raw, model_type, where)
    tensors = list(_tensors(family, head, values, where))
    return ModelSpec(
        name=name,
        origin=f"{where} ({head}{', its auto_map is not run' if 'auto_map' in raw else ''})",
        parameters=tuple(tensor for is_buffer, tensor in tensors if not is_buffer),
        buffers=tuple(tensor for is_buffer, tensor in tensors if is_buffer),
        arch=_arch(values, model_type, where),
        hf_config=values,
    )


def _arch(values: Mapping[str, Any], model_type: str, where: str) -> Architecture:
    """Widths; of a family that is not ours its fields may be anything, so only ours are read."""
    if model_type not in FAMILIES:
        return Architecture(family=model_type)
    try:
        return from_hf_config(values)
    except InputError as error:
        raise InputError(error.message, where=where) from None


def _model_type(raw: Mapping[str, Any], where: str) -> str:
    model_type = raw.get("model_type")
    if isinstance(model_type, str) and model_type:
        return model_type
    if "model_type" in raw:
        raise InputError(f"model_type is {shown(model_type)}, not a name", where=where)
    deepspeed = {"zero_optimization", "train_micro_batch_size_per_gpu"} & raw.keys()
    hint = "this looks like a DeepSpeed config" if deepspeed else "is it a model's config.json?"
    raise InputError("has no model_type", remedy=hint, where=where)


def _architectures(raw: Mapping[str, Any], where: str) -> list[str] | None:
    named = raw.get("architectures")
    if named is None or (isinstance(named, list) and all(isinstance(n, str) for n in named)):
        return named
    raise InputError(f"architectures is {shown(named)}, not a list of names", where=where)


def _head(raw: Mapping[str, Any], model_type: str, where: str) -> str | None:
    """The class to lay out; None where only transformers may know it."""
    named = _architectures(raw, where)
    family = FAMILIES.get(model_type)
    if family is None or _has_more_tensors(raw, model_type):
        return None
    head = named[0] if named else family.head
    known = (family.head, family.base, *family.heads_known)
    return head if head in known else None


def _has_more_tensors(raw: Mapping[str, Any], model_type: str) -> bool:
    """Whether an option is on that our layouts leave out and transformers' classes have."""
    learnt = config_defaults()["learnt_activations"]
    return (
        "per_layer_config" in raw
        or (model_type == "bert" and bool(raw.get("add_cross_attention")))
        or any(raw.get(key) in learnt for key in ACTIVATION_KEYS)
    )


def _name(raw: Mapping[str, Any], path: Path) -> str:
    """The folder's name, which is what a model folder is called; else the file's."""
    named = raw.get("_name_or_path")
    if isinstance(named, str) and named.strip("./ "):
        return one_line(named, _LONGEST_NAME) or "model"
    return path.resolve().parent.name if path.name == "config.json" else path.stem


def _tensors(
    family: Family, head: str, values: Mapping[str, Any], where: str
) -> list[tuple[bool, Tensor]]:
    widths = widths_of(values, where)
    if head in ("BertModel", "BertForPreTraining"):
        widths["pooler"] = 1
    widths["next_sentence"] = int(head == "BertForPreTraining")
    tensors = list(expand(family.blocks, widths, class_prefix=family.class_prefix))
    if head != family.base or not family.base_prefix:
        return tensors
    cut = len(family.base_prefix)
    return [
        (is_buffer, _renamed(tensor, tensor.name[cut:]))
        for is_buffer, tensor in tensors
        if tensor.name.startswith(family.base_prefix)
    ]


def _renamed(tensor: Tensor, name: str) -> Tensor:
    return Tensor(name, tensor.shape, tensor.dtype, tensor.trainable, tensor.module_type)
