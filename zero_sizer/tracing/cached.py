"""Profiles of the user's own models, traced once and kept in the user's cache."""

from collections.abc import Callable
from pathlib import Path

from zero_sizer.activations.store import cache_file, key_of, write_cached
from zero_sizer.errors import UnsupportedError
from zero_sizer.models.spec import ModelSpec


def trace_to_cache(spec: ModelSpec, report: Callable[[str], None] = lambda line: None) -> Path:
    """Traces ``spec`` and writes its profile where ``zero_sizer.activations.load`` finds it.

    Args:
        spec: a model with a Hugging Face config.
        report: told about each way of running it that is done.

    Returns:
        The file.

    Raises:
        UnsupportedError: there is no config, torch or transformers is missing, or transformers does
            not train it.
    """
    if not spec.hf_config or not spec.exact_tensors:
        raise UnsupportedError(
            f"{spec.name}: a profile is traced from a Hugging Face config, and there is none",
            remedy="name a bundled model, or a config.json",
        )
    try:
        from zero_sizer.tracing.build import changes_of
        from zero_sizer.tracing.profile import all_setups, has_biases, trace_profile
    except ImportError as error:
        raise UnsupportedError(
            "tracing a profile needs torch and transformers",
            remedy="pip install zero-sizer[deepspeed]",
        ) from error
    key = key_of(spec)
    path = cache_file(key)
    changes = changes_of(spec)
    setups = tuple(all_setups(is_changed=any(changes), has_biases=has_biases(spec)))
    document = trace_profile(
        spec.hf_config,
        name=spec.name,
        key=key,
        changes=changes,
        setups=setups,
        report=report,
    )
    write_cached(path, document)
    return path
