"""``zero-sizer diagnose``: read the log of a job that ran out of memory."""

import argparse

from zero_sizer.cli import options
from zero_sizer.cli.exit_codes import DOES_NOT_FIT, UNCERTAIN
from zero_sizer.job.fields import GOAL, TRAINING
from zero_sizer.questions.diagnose import diagnose
from zero_sizer.report.formats import reporter


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("log", metavar="LOG", help="what the job printed; - is standard input")
    options.add_job_options(parser, needs_config=False, leave_out=(TRAINING, GOAL))
    parser.usage = "%(prog)s LOG [CONFIG] [options]"
    options.add_format_option(parser, "diagnose")
    parser.epilog = (
        "Exit codes: 1 a memory failure was found, 3 none was, 2 the log or the job cannot be read."
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the diagnosis; 1 where the log tells of a memory failure."""
    found = diagnose(arguments.log, arguments.config, options.flags_from(arguments))
    reporter("diagnose", arguments.format)(found)
    return DOES_NOT_FIT if found.log.cause is not None else UNCERTAIN
