"""Profiles of the user's own models, traced once and kept in the user's cache."""

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zero_sizer.activations.profile import FALLBACK
from zero_sizer.activations.store import Asked, cache_file, key_of, setup_key, write_cached
from zero_sizer.errors import UnsupportedError
from zero_sizer.models.feeds import Feed
from zero_sizer.models.sources.untrusted import offline
from zero_sizer.models.spec import ModelSpec

if TYPE_CHECKING:
    from zero_sizer.tracing.setups import Setup


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
        from zero_sizer.tracing.setups import Setup
    except ImportError as error:
        raise UnsupportedError(
            "tracing a profile needs torch and transformers",
            remedy="pip install zero-sizer[deepspeed]",
        ) from error
    refused = UnsupportedError(f"{spec.name} runs in no way")
    for attention in FALLBACK[FALLBACK.index(asked.attention) :]:
        setup = Setup(variant=asked.variant, attention=attention, checkpointing=asked.checkpointing)
        report(f"tracing {spec.name}: {attention} attention in {asked.variant}")
        try:
            with offline():
                where, document = _traced_setup(spec, feed, setup, at)
        except UnsupportedError as error:
            refused = error
            continue
        except Exception as error:  # the model's own code may raise anything
            text = " ".join(str(error).split())[:200]
            raise UnsupportedError(f"{type(error).__name__}: {text}") from error
        write_cached(cache_file(setup_key(spec, feed, asked, where)), document)
        return
    raise refused


def _traced_setup(
    spec: ModelSpec, feed: Feed | None, setup: "Setup", at: tuple[int, int]
) -> tuple[tuple[int, int] | None, dict[str, Any]]:
    """Where the profile holds (None: everywhere), and the profile.

    Blocks that follow one another are traced once for all; a model whose blocks do not, as those
    between which tokens are merged, as one part.
    """
    from zero_sizer.errors import WitnessError
    from zero_sizer.tracing.encode import Encoder
    from zero_sizer.tracing.profile import head_of
    from zero_sizer.tracing.setups import Tracer

    is_general = feed is None or not feed.loops
    for in_blocks, general in product((True, False), (True, False) if is_general else (False,)):
        tracer = Tracer(spec.hf_config, feed=feed, in_blocks=in_blocks)
        encoder = Encoder(tracer.stacks)
        try:
            encoder.add(setup, tracer.fits(setup) if general else [tracer.at(setup, *at)])
        except WitnessError:  # what runs depends on the batch, or blocks are no stacks
            continue
        return None if general else at, encoder.document(head_of(spec.name, "", tracer.model_class))
    raise UnsupportedError(f"{spec.name}: what its step holds cannot be told apart")
