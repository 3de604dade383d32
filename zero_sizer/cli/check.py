"""``zero-sizer check``: validate a config and predict what the job needs."""

import argparse

from zero_sizer.cli import options
from zero_sizer.cli.exit_codes import exit_code
from zero_sizer.ledger.verdict import Verdict
from zero_sizer.sizing import size


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    options.add_job_options(parser)
    options.add_training_options(parser)
    options.add_format_option(parser)
    parser.add_argument(
        "--timeline", action="store_true", help="plot what lives on each device over a step"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the answer; the exit code says it again."""
    job = options.job_from(arguments)
    goal = options.goal_from(arguments, job)
    sizing = size(job)
    if sizing.verdict is Verdict.UNCERTAIN:
        from zero_sizer.cli.tracing import with_profile

        sizing = with_profile(sizing)
    training = None
    if goal is not None:
        from zero_sizer.speed.training import of_sizing

        training = of_sizing(sizing, goal)
    if arguments.format == "json":
        from zero_sizer.report import json

        print(json.render(sizing, timeline=arguments.timeline, training=training))
    else:
        from zero_sizer.report import text

        text.show(sizing, timeline=arguments.timeline, training=training)
    return exit_code(sizing)
