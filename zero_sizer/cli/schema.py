"""``zero-sizer schema``: JSON Schemas, of a DeepSpeed config for editors and of our answers."""

import argparse
from pathlib import Path

from zero_sizer.config.schema import config_schema
from zero_sizer.errors import InputError
from zero_sizer.report.document import document_text, print_document
from zero_sizer.schemas import answer_schema, answers
from zero_sizer.util.files import require_writable, write_text


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "--strict",
        action="store_true",
        help="refuse keys that DeepSpeed silently ignores, too, and values of another type than "
        "the default's where it does not look",
    )
    parser.add_argument(
        "--answer", choices=answers(), help="of this answer's JSON instead of a DeepSpeed config"
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="write it here")
    parser.set_defaults(run=run, format="json")


def run(arguments: argparse.Namespace) -> int:
    """Print the schema, or write it."""
    if arguments.answer is not None and arguments.strict:
        raise InputError("is of a DeepSpeed config", where="--strict")
    require_writable(arguments.output, "--output")
    found = (
        config_schema(strict=arguments.strict)
        if arguments.answer is None
        else answer_schema(arguments.answer)
    )
    if arguments.output is None:
        print_document(found)
    else:
        write_text(Path(arguments.output), document_text(found) + "\n")
        print(f"{arguments.output} written")
    return 0
