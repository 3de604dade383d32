"""``zero-sizer calibrate``: a cluster profile of what trained runs recorded."""

import argparse
from dataclasses import replace

from zero_sizer.cli import options
from zero_sizer.cli.output import require_output
from zero_sizer.questions.calibrate import calibrate
from zero_sizer.report.document import document_text
from zero_sizer.report.formats import reporter
from zero_sizer.util.files import write_text


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "recordings",
        metavar="RECORDING",
        nargs="+",
        help="what a Trainer's callback or loop.watch wrote",
    )
    options.add_format_option(parser, "calibrate")
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="write the profile (JSON) here, for --cluster-profile",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the profile, and write it where a file is named."""
    for path in arguments.recordings:
        require_output(arguments.output, path)
    profile = calibrate(arguments.recordings)
    if arguments.output is not None:
        write_text(arguments.output, document_text(profile.to_json()) + "\n")
        profile = replace(profile, source=arguments.output)
    reporter("calibrate", arguments.format)(profile)
    return 0
