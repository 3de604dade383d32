"""A model with fewer layers, so that a real run of a large one fits on a small machine."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from zero_sizer.errors import InputError, UnsupportedError
from zero_sizer.job.read import Job
from zero_sizer.models.spec import ModelSpec, Tensor

_LAYER_COUNTS = (
    "num_hidden_layers",
    "num_layers",
    "n_layer",
    "n_layers",
    "num_decoder_layers",
    "encoder_layers",
    "decoder_layers",
    "depth",
)
_PER_LAYER = ("layer_types", "mlp_layer_types", "no_rope_layers")
_LAYER_INDEX = re.compile(r"(?:^|\.)(\d+)\.")


def cut_job(job: Job, layers: int | None) -> Job:
    """Cuts the job's model to its first ``layers`` layers (all of it for None)."""
    return job if layers is None else replace(job, model=cut_model(job.model, layers))


def cut_model(model: ModelSpec, layers: int) -> ModelSpec:
    """The model with at most ``layers`` layers, in each half of an encoder-decoder.

    Raises:
        UnsupportedError: a factory builds the model, so it cannot be cut here.
        InputError: it has fewer.
    """
    if model.origin.startswith("factory "):
        raise UnsupportedError(
            "--layers cannot cut what a factory returns",
            remedy="let the factory build fewer layers",
        )
    there_are = _num_layers(model)
    if layers > there_are:
        raise InputError(
            f"{model.name} has {there_are} layer{'' if there_are == 1 else 's'}",
            remedy=f"give at most {there_are}" if there_are else "leave it out",
            where="--layers",
        )
    arch = model.arch
    return replace(
        model,
        name=f"{model.name} cut to {layers} layers",
        parameters=_cut_tensors(model.parameters, layers),
        buffers=_cut_tensors(model.buffers, layers),
        hf_config=_cut_fields(model.hf_config, layers),
        base=None if model.base is None else cut_model(model.base, layers),
        arch=replace(
            arch,
            num_layers=_at_most(arch.num_layers, layers),
            decoder_layers=_at_most(arch.decoder_layers, layers),
        ),
    )


def _num_layers(model: ModelSpec) -> int:
    """Layers of the deeper half; as its tensors are numbered where no width says."""
    stated = max(model.arch.num_layers or 0, model.arch.decoder_layers or 0)
    found = (_LAYER_INDEX.search(tensor.name) for tensor in model.parameters)
    return stated or max((int(match.group(1)) + 1 for match in found if match), default=0)


def _at_most(count: int | None, layers: int) -> int | None:
    return None if count is None else min(count, layers)


def _cut_fields(fields: Mapping[str, Any], layers: int) -> dict[str, Any]:
    """A config, and those in it, with fewer layers."""
    cut: dict[str, Any] = {
        name: _cut_fields(value, layers) if isinstance(value, Mapping) else value
        for name, value in fields.items()
    }
    for name, value in fields.items():
        if name in _LAYER_COUNTS and isinstance(value, int):
            cut[name] = min(value, layers)
        elif name in _PER_LAYER and isinstance(value, list):
            cut[name] = value[:layers]
    return cut


def _cut_tensors(tensors: tuple[Tensor, ...], layers: int) -> tuple[Tensor, ...]:
    """The tensors whose first index in the name is below ``layers``, and those without one."""

    def kept(name: str) -> bool:
        match = _LAYER_INDEX.search(name)
        return match is None or int(match.group(1)) < layers

    return tuple(tensor for tensor in tensors if kept(tensor.name))
