"""``zero-sizer size``: the fewest nodes that fit, per strategy, and what more of them bring."""

import argparse

from zero_sizer.cli import options
from zero_sizer.cli.choose import add_choice_options, job_from, wishes_from
from zero_sizer.cli.exit_codes import DOES_NOT_FIT, of_verdict
from zero_sizer.cli.output import add_output_option, answer_to, require_output
from zero_sizer.cli.progress import ticking
from zero_sizer.questions.choose import FEWEST, refuse_nodes, size
from zero_sizer.report.formats import reporter
from zero_sizer.report.verdict import WORDS


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    options.add_job_options(parser, needs_config=False)
    options.add_format_option(parser, "size")
    add_choice_options(parser)
    target = parser.add_argument_group("target")
    target.add_argument(
        "--max-nodes", type=options.count, default=64, metavar="N", help="largest size (64)"
    )
    target.add_argument(
        "--fewest",
        choices=FEWEST,
        default=FEWEST[0],
        help="what to count: GPUs, down to a part of a node (default), or whole nodes",
    )
    target.add_argument(
        "--target-tokens-per-second", type=_positive, metavar="RATE", help="over all GPUs"
    )
    add_output_option(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the table; 1 where nothing reaches the target, else as ``check``."""
    flags = options.flags_from(arguments)
    refuse_nodes(flags)
    require_output(arguments.output, arguments.config)
    found = size(job_from(arguments), flags, wishes_from(arguments), ticking)
    with answer_to(arguments.output, WORDS[found.verdict]):
        reporter("size", arguments.format)(found)
    return of_verdict(found.verdict) if found.is_reached else DOES_NOT_FIT


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not 0 < value < 1e30:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value
