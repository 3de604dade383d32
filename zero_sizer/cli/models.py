"""``zero-sizer models``: what is bundled, and a profile of what is not."""

import argparse
import sys


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "--profile",
        metavar="SOURCE",
        help="trace the activations of a model (its config.json) once, for every later check",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print one row a model, or trace the one that is named."""
    if arguments.profile is not None:
        return _profile(arguments.profile)
    from zero_sizer.models import describe_all
    from zero_sizer.report.table import show_table

    rows = [
        (r.name, f"{r.params:,}", str(r.layers), str(r.hidden), r.source) for r in describe_all()
    ]
    show_table(("model", "parameters", "layers", "hidden", "source"), rows, right=(1, 2, 3))
    return 0


def _profile(source: str) -> int:
    from zero_sizer import profiles
    from zero_sizer.models import load

    spec = load(source)
    known = profiles.load(spec)
    if known is not None:
        print(f"{spec.name}: the profile of {known.name} is there already")
        return 0
    from zero_sizer.witnesses.tracing.cached import trace_to_cache

    path = trace_to_cache(spec, lambda line: print(line, file=sys.stderr))
    print(f"wrote {path}")
    return 0
