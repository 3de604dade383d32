"""``zero-sizer models``: what is bundled, and a profile of what is not."""

import argparse
import sys

from zero_sizer.cli.options import add_format_option
from zero_sizer.errors import InputError
from zero_sizer.report.formats import reporter


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_format_option(parser, "models")
    parser.add_argument(
        "--profile",
        metavar="SOURCE",
        help="trace the activations of a model (its config.json) once, for every later check",
    )
    parser.add_argument(
        "--adapter", metavar="LORA", help="trace it under this adapter, see `zero-sizer check -h`"
    )
    parser.add_argument("--quantization", metavar="HOW", help="trace it with such weights")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print one row a model, or trace the one that is named."""
    if arguments.profile is not None:
        return _profile(arguments)
    for flag in ("adapter", "quantization"):
        if getattr(arguments, flag) is not None:
            raise InputError("needs a model", remedy="add --profile MODEL", where=f"--{flag}")
    from zero_sizer.models import describe_all

    reporter("models", arguments.format)(list(describe_all()))
    return 0


def _profile(arguments: argparse.Namespace) -> int:
    if arguments.format == "json":
        raise InputError("does not apply to --profile", where="--format")
    from zero_sizer import activations
    from zero_sizer.job.fields import Flags
    from zero_sizer.job.read import model_of

    spec = model_of(
        Flags(
            model=arguments.profile,
            adapter=arguments.adapter,
            quantization=arguments.quantization,
        )
    )
    known = activations.load(spec)
    if known is not None:
        print(f"{spec.name}: the profile of {known.name} is there already")
        return 0
    from zero_sizer.tracing.cached import trace_to_cache

    path = trace_to_cache(spec, lambda line: print(line, file=sys.stderr))
    print(f"wrote {path}")
    return 0
