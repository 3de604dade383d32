"""``zero-sizer lint``: validate many configs, without a model or a cluster."""

import argparse

from zero_sizer.cli.exit_codes import DOES_NOT_FIT, OK
from zero_sizer.cli.options import add_format_option
from zero_sizer.errors import InputError
from zero_sizer.questions.lint import STDIN, lint
from zero_sizer.report.formats import reporter

_UNREADABLE = 2


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "files",
        metavar="FILE",
        nargs="+",
        help="a DeepSpeed JSON or a job YAML; - is standard input",
    )
    add_format_option(parser, "lint")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print every finding; 1 with an error, 2 with a file that cannot be read."""
    if arguments.files.count(STDIN) > 1:
        raise InputError("standard input can be read once", where=STDIN)
    found = [lint(name) for name in arguments.files]
    reporter("lint", arguments.format)(found)
    if not all(linted.is_readable for linted in found):
        return _UNREADABLE
    return OK if all(linted.is_valid for linted in found) else DOES_NOT_FIT
