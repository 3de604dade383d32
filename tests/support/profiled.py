"""Bundled models whose activations are bundled too; others are traced where they are asked for."""

from functools import cache

from zero_sizer import activations
from zero_sizer.models.feeds import feed_of
from zero_sizer.models.sources.bundled import bundled_names, load_bundled


@cache  # each worker collects two files that ask
def profiled_names():
    """Their names."""
    specs = (load_bundled(name) for name in bundled_names())
    fed = [spec for spec in specs if feed_of(spec) is None]
    return [spec.name for spec in fed if activations.load(spec) is not None]
