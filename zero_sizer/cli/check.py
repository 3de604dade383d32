"""``zero-sizer check``: validate a config and predict what the job needs."""

import argparse

from zero_sizer.answer import answer_of
from zero_sizer.cli import options
from zero_sizer.cli.exit_codes import exit_code
from zero_sizer.job.fields import GOAL
from zero_sizer.ledger.verdict import Verdict
from zero_sizer.report.formats import reporter
from zero_sizer.sizing import size


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    options.add_job_options(parser, needs_config=False, leave_out=(GOAL,))
    options.add_format_option(parser, "check")
    parser.add_argument(
        "--timeline", action="store_true", help="plot what lives on each device over a step"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the answer; the exit code says it again."""
    job = options.job_of_any_task(arguments)
    goal = options.goal_from(arguments, job)
    sizing = size(job)
    if sizing.verdict is Verdict.UNCERTAIN:
        from zero_sizer.cli.tracing import with_profile

        sizing = with_profile(sizing)
    answer = answer_of(sizing, points=arguments.timeline, goal=goal)
    reporter("check", arguments.format)(answer, timeline=arguments.timeline)
    return exit_code(sizing)
