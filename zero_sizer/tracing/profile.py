"""The activation profile of a model: every way of running it, traced and fitted."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from itertools import product
from typing import Any

from zero_sizer.errors import UnsupportedError
from zero_sizer.models.spec import ModelSpec
from zero_sizer.tracing.build import ATTENTION, UNCHANGED, Changes
from zero_sizer.tracing.encode import Encoder
from zero_sizer.tracing.setups import (
    BIASED_VARIANTS,
    FROZEN_VARIANTS,
    TRAINED_VARIANTS,
    Setup,
    Tracer,
)

_NOTES = (
    "no attention mask, or one without padding; labels for every token",
    "experts by grouped matrix products: the same bytes whichever way tokens are routed",
    "without the workspaces inside of kernels",
)


def trace_profile(
    fields: Mapping[str, Any],
    *,
    name: str,
    key: str,
    changes: Changes = UNCHANGED,
    setups: Sequence[Setup] | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Traces the model of a config.json's ``fields``.

    Args:
        fields: with every default filled in.
        name: what to call it.
        key: what ``zero_sizer.activations`` finds it by.
        changes: to the model of the config.
        setups: the only ones to trace, None for all.
        report: told about each setup.

    Raises:
        UnsupportedError: transformers does not know the model, or trains it in no way.
    """
    tracer = Tracer(fields, changes=changes)
    encoder = Encoder(tracer.stacks)
    refused: dict[Setup, str] = {}
    asked = list(all_setups(is_changed=changes != UNCHANGED) if setups is None else setups)
    for setup in asked:
        try:
            encoder.add(setup, tracer.fits(setup))
        except UnsupportedError as error:
            refused[setup] = str(error)
            continue
        report(f"{name}: {setup.variant}, {setup.attention}, checkpointing {setup.checkpointing}")
    if len(refused) == len(asked):
        raise UnsupportedError(f"{name}: {next(iter(refused.values()))}")
    return encoder.document(head_of(name, key, tracer.model_class))


def has_biases(spec: ModelSpec) -> bool:
    """True if linear layers have biases."""
    return any(t.module_type == "Linear" and t.name.endswith(".bias") for t in spec.parameters)


def head_of(name: str, key: str, model_class: str) -> dict[str, Any]:
    """Head of a profile: its model, versions and setups."""
    return {
        "name": name,
        "key": key,
        "model_class": model_class,
        "versions": {package: metadata.version(package) for package in ("torch", "transformers")},
        "notes": list(_NOTES),
    }


def all_setups(*, is_changed: bool, has_biases: bool = False) -> Iterator[Setup]:
    """Every way of running a model that may hold more or less."""
    trained = BIASED_VARIANTS if has_biases else TRAINED_VARIANTS
    variants = FROZEN_VARIANTS if is_changed else trained
    for variant, attention, checkpointing in product(variants, ATTENTION, (False, True)):
        yield Setup(variant=variant, attention=attention, checkpointing=checkpointing)
