"""``zero-sizer check``: validate a config and predict what the job needs."""

import argparse

from zero_sizer.cli import options
from zero_sizer.cli.exit_codes import exit_code
from zero_sizer.cli.output import add_output_option, answer_to, require_output
from zero_sizer.cli.progress import Progress
from zero_sizer.job.fields import GOAL
from zero_sizer.questions.check import check
from zero_sizer.report.formats import reporter
from zero_sizer.report.verdict import WORDS


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    options.add_job_options(parser, needs_config=False, leave_out=(GOAL,))
    options.add_format_option(parser, "check")
    parser.add_argument(
        "--timeline", action="store_true", help="plot what lives on each device over a step"
    )
    add_output_option(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the answer; the exit code says it again."""
    flags, is_page = options.flags_from(arguments), arguments.format == "html"
    options.require_config(arguments, flags)
    require_output(arguments.output, arguments.config)
    with Progress("", None, patience=0) as progress:
        answer = check(
            arguments.config,
            flags,
            timeline=arguments.timeline or is_page,
            fit_map=is_page,
            tell=lambda line: progress.at(0, None, line),
        )
    with answer_to(arguments.output, WORDS[answer.sizing.verdict]):
        reporter("check", arguments.format)(answer, timeline=arguments.timeline)
    return exit_code(answer.sizing)
