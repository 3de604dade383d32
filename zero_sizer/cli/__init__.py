"""The command line: parse, call, render, exit code. No arithmetic here."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from zero_sizer import __version__
from zero_sizer.cli.parser import Parser
from zero_sizer.collector import collector_off
from zero_sizer.errors import ZeroSizerError

_COMMANDS = {
    "check": "validate a DeepSpeed config and predict what the job needs",
    "choose": "rank ZeRO stages, offload, batch and buffers on a cluster; write the config",
    "size": "the fewest nodes that fit, per strategy, and where more stop helping",
    "dryrun": "run the real engine (simulated, on one device, or launched) and record it",
    "crosscheck": "lay the prediction beside independent witnesses",
    "models": "list the bundled models",
    "gpus": "list the known GPUs",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code of the documented contract (0, 1, 2, 3)."""
    with collector_off():  # what a command builds lives until it ends: nothing would be freed
        return _run(arguments)


def _run(arguments: Sequence[str] | None) -> int:
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    arguments, script = _split_script(arguments)
    parser = _parser(arguments)
    parsed, unknown = parser.parse_known_args(arguments, argparse.Namespace(script=script))
    if unknown:
        parsed.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    try:
        code: int = parsed.run(parsed)
    except ZeroSizerError as error:
        print(f"zero-sizer: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except OSError as error:
        print(f"zero-sizer: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("zero-sizer: interrupted", file=sys.stderr)
        return 130
    return code


def _split_script(arguments: list[str]) -> tuple[list[str], list[str] | None]:
    """What ``dryrun`` finds after ``--`` is a script and its own options, not ours."""
    if "--" not in arguments or _named(arguments) != "dryrun":
        return arguments, None
    where = arguments.index("--")
    return arguments[:where], arguments[where + 1 :]


def _named(arguments: Sequence[str]) -> str | None:
    return next((a for a in arguments if a in _COMMANDS), None)


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = Parser(
        prog="zero-sizer",
        description="Know what a DeepSpeed job needs before you launch it.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"zero-sizer {__version__}")
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    named = _named(arguments)
    for command, summary in _COMMANDS.items():
        subparser = subparsers.add_parser(
            command, help=summary, description=summary, allow_abbrev=False
        )
        if command == named:  # only the command that runs is imported: a cold start stays short
            import_module(f"zero_sizer.cli.{command}").configure(subparser)
            subparser.set_defaults(parser=subparser)
    return parser
