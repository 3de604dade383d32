"""The activation profile of a model: every way of running it, traced and fitted."""

from collections.abc import Callable, Mapping
from importlib import metadata
from itertools import product
from typing import Any

from zero_sizer.errors import UnsupportedError
from zero_sizer.witnesses.tracing.build import ATTENTION
from zero_sizer.witnesses.tracing.encode import Encoder
from zero_sizer.witnesses.tracing.setups import VARIANTS, Setup, Tracer

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
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Traces the model of a config.json's ``fields``.

    Args:
        fields: with every default filled in.
        name: what to call it.
        key: what ``zero_sizer.profiles`` finds it by.
        report: told about each setup.

    Raises:
        UnsupportedError: transformers does not know the model, or trains it in no way.
    """
    tracer = Tracer(fields)
    encoder = Encoder(tracer.stacks)
    refused: dict[str, str] = {}
    for variant, attention, checkpointing in product(VARIANTS, ATTENTION, (False, True)):
        setup = Setup(variant=variant, attention=attention, checkpointing=checkpointing)
        try:
            encoder.add(setup, tracer.fits(setup))
        except UnsupportedError as error:
            refused[f"{variant} {attention}"] = str(error)
            continue
        report(f"{name}: {variant}, {attention}, checkpointing {checkpointing}")
    if len(refused) == len(VARIANTS) * len(ATTENTION):
        raise UnsupportedError(f"{name}: {next(iter(refused.values()))}")
    head = {
        "name": name,
        "key": key,
        "model_class": tracer.model_class,
        "versions": {package: metadata.version(package) for package in ("torch", "transformers")},
        "notes": list(_NOTES),
    }
    return encoder.document(head)
