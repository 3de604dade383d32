"""``zero-sizer size``: the fewest nodes that fit, per strategy, and what more of them bring."""

import argparse

from zero_sizer.advise.choose import Options
from zero_sizer.advise.fleet import fleet
from zero_sizer.advise.sizes import node_counts
from zero_sizer.advise.strategy import strategies
from zero_sizer.cli import options
from zero_sizer.cli.choose import add_choice_options, job_from
from zero_sizer.cli.exit_codes import DOES_NOT_FIT, of_verdict
from zero_sizer.cli.progress import Progress
from zero_sizer.errors import InputError
from zero_sizer.report.formats import reporter


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    options.add_job_options(parser, needs_config=False)
    options.add_format_option(parser, "size")
    add_choice_options(parser)
    target = parser.add_argument_group("target")
    target.add_argument("--max-nodes", type=options.count, default=64, help="largest size (64)")
    target.add_argument(
        "--fewest",
        choices=("gpus", "nodes"),
        default="gpus",
        help="what to count: GPUs, down to a part of a node (default), or whole nodes",
    )
    target.add_argument(
        "--target-tokens-per-second", type=_positive, metavar="RATE", help="over all GPUs"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the table; 1 where nothing reaches the target, else as ``check``."""
    if arguments.nodes is not None:
        raise InputError(
            "does not apply: how many are needed is the answer",
            remedy="--max-nodes says up to how many are tried",
            where="--nodes",
        )
    job = job_from(arguments)
    wanted: float | None = arguments.target_tokens_per_second
    if wanted is not None and arguments.target_days is not None:
        raise InputError(
            "two targets", remedy="give this or --target-tokens-per-second", where="--target-days"
        )
    goal = options.goal_from(arguments, job)
    total = len(node_counts(arguments.max_nodes)) * len(strategies(job))
    with Progress("sizing", total) as progress:
        found = fleet(
            job,
            Options(
                margin=arguments.margin,
                train_batch=arguments.train_batch_size,
                tick=progress.tick,
                goal=goal,
            ),
            max_nodes=arguments.max_nodes,
            tokens_per_second=wanted,
            fewest_of=arguments.fewest,
        )
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
