"""``zero-sizer models``: what is bundled."""

import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print one row a model."""
    from zero_sizer.models import describe_all
    from zero_sizer.report.table import show_table

    rows = [
        (r.name, f"{r.params:,}", str(r.layers), str(r.hidden), r.source) for r in describe_all()
    ]
    show_table(("model", "parameters", "layers", "hidden", "source"), rows, right=(1, 2, 3))
    return 0
