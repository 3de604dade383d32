"""Profiles of the user's own models, traced once and kept in the user's cache."""

from collections.abc import Callable
from pathlib import Path

from zero_sizer.activations.profile import FALLBACK
from zero_sizer.activations.store import Asked, cache_file, key_of, setup_key, write_cached
from zero_sizer.errors import UnsupportedError, WitnessError
from zero_sizer.models.feeds import Feed
from zero_sizer.models.sources.untrusted import offline
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


def trace_setup(
    spec: ModelSpec,
    feed: Feed | None,
    asked: Asked,
    at: tuple[int, int],
    report: Callable[[str], None] = lambda line: None,
) -> None:
    """Traces one way of running ``spec`` and writes it where ``activations.store`` finds it.

    For any batch and sequence; where the operators that run depend on them, for ``at`` alone.

    Args:
        spec: a model with a config.
        feed: what a sample brings; None: token ids and labels.
        asked: precision, attention and checkpointing; a slower attention where the class lacks it.
        at: batch and sequence of the job.
        report: told what is being done.

    Raises:
        UnsupportedError: torch or the class's package is missing, or the class does not run so.
        InputError: the config is refused.
    """
    try:
        from zero_sizer.tracing.encode import Encoder
        from zero_sizer.tracing.profile import head_of
        from zero_sizer.tracing.setups import Setup, Tracer
    except ImportError as error:
        raise UnsupportedError(
            "tracing a profile needs torch and transformers",
            remedy="pip install zero-sizer[deepspeed]",
        ) from error
    with offline():
        tracer = Tracer(spec.hf_config, feed=feed)
        refused = UnsupportedError(f"{spec.name} runs in no way")
        for attention in FALLBACK[FALLBACK.index(asked.attention) :]:
            setup = Setup(
                variant=asked.variant, attention=attention, checkpointing=asked.checkpointing
            )
            is_general = feed is None or not feed.loops
            try:
                report(f"tracing {spec.name}: {attention} attention in {asked.variant}")
                fits = tracer.fits(setup) if is_general else [tracer.at(setup, *at)]
            except UnsupportedError as error:
                refused = error
                continue
            except WitnessError:  # what runs depends on the batch, as a loop over its images does
                report(f"tracing {spec.name}: {at[0]} samples, {at[1]} tokens")
                fits, is_general = [tracer.at(setup, *at)], False
            encoder = Encoder(tracer.stacks)
            encoder.add(setup, fits)
            key = setup_key(spec, feed, asked, None if is_general else at)
            write_cached(
                cache_file(key), encoder.document(head_of(spec.name, key, tracer.model_class))
            )
            return
        raise refused
