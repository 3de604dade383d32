"""``zero-sizer check``: validate a config and predict what the job needs."""

import argparse

from zero_sizer.cli import options
from zero_sizer.cli.exit_codes import exit_code
from zero_sizer.cli.progress import Progress
from zero_sizer.job.fields import GOAL
from zero_sizer.questions.check import check
from zero_sizer.report.formats import reporter


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    options.add_job_options(parser, leave_out=(GOAL,))
    options.add_format_option(parser, "check")
    parser.add_argument(
        "--timeline", action="store_true", help="plot what lives on each device over a step"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the answer; the exit code says it again."""
    flags = options.flags_from(arguments)
    with Progress("", None, patience=0) as progress:
        answer = check(
            arguments.config,
            flags,
            timeline=arguments.timeline,
            tell=lambda line: progress.at(0, None, line),
        )
    reporter("check", arguments.format)(answer, timeline=arguments.timeline)
    return exit_code(answer.sizing)
