"""One command of the command line: parse, call, render, exit code. No arithmetic here."""

import argparse
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module

from zero_sizer.cli.parser import Parser
from zero_sizer.cli.streams import Outlet, guarded
from zero_sizer.errors import ZeroSizerError
from zero_sizer.util.gc_paused import collector_off
from zero_sizer.util.terminal import one_line
from zero_sizer.version import __version__

_COMMANDS = {
    "check": "validate a DeepSpeed config and predict what the job needs",
    "choose": "rank ZeRO stages, offload, batch and buffers on a cluster; write the config",
    "size": "the fewest nodes that fit, per strategy, and where more stop helping",
    "lint": "validate many configs, without a model or a cluster",
    "guard": "launch what fits, and refuse what does not",
    "diagnose": "read the log of a job that ran out of memory: cause and changes",
    "dryrun": "run the real engine (simulated, on one device, or launched) and record it",
    "crosscheck": "lay the prediction beside independent witnesses",
    "calibrate": "make a cluster profile of what trained runs recorded",
    "schema": "print the JSON Schema of a DeepSpeed config, for editors",
    "page": "build a web page that answers in the browser",
    "models": "list the bundled models",
    "gpus": "list the known GPUs",
    "completion": "print a script with which a shell completes commands and options",
}

_TAKE_A_LINE = ("dryrun", "guard")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code of the documented contract (0, 1, 2, 3)."""
    try:
        # What a command builds lives until it ends: a collector would free nothing.
        with collector_off(), guarded() as (output, _):
            return _run(list(sys.argv[1:] if arguments is None else arguments), output)
    except OSError as error:  # standard output is a file on a full disk
        _say(f"the answer cannot be written: {error.strerror or error}")
        return 2


def _run(arguments: Sequence[str], output: Outlet) -> int:
    try:
        parsed = _parsed(arguments)
        output.is_whole = getattr(parsed, "format", "text") != "text"
        code: int = parsed.run(parsed)
        output.flush()
    except ZeroSizerError as error:
        _say(str(error))
        return error.exit_code
    except OSError as error:
        if output.has_failed:  # said once, by the caller
            raise
        _say(
            f"{error.filename}: {error.strerror}"
            if error.filename
            else error.strerror or str(error)
        )
        return 2
    except KeyboardInterrupt:
        _say("interrupted")
        return 130
    except MemoryError:
        _say("out of memory: what was asked for is too large for this machine")
        return 2
    return code


def _say(text: str) -> None:
    if sys.stderr is not None:
        with suppress(OSError):  # nobody can be told
            print(f"zero-sizer: {one_line(text)}", file=sys.stderr, flush=True)


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    if not arguments:
        _parser(()).print_help(sys.stderr)
        raise SystemExit(2)
    own, script = _split_script(_helped(list(arguments)))
    parsed, unknown = _parser(own).parse_known_args(own, argparse.Namespace(script=script))
    if unknown:
        parsed.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    return parsed


def _helped(arguments: list[str]) -> list[str]:
    """``help check`` asks what ``check --help`` asks."""
    return [*arguments[1:], "--help"] if arguments[:1] == ["help"] else arguments


def _split_script(arguments: list[str]) -> tuple[list[str], list[str] | None]:
    """What some find after ``--`` is a line and its own options, not ours."""
    if "--" not in arguments or _named(arguments) not in _TAKE_A_LINE:
        return arguments, None
    where = arguments.index("--")
    return arguments[:where], arguments[where + 1 :]


def _named(arguments: Sequence[str]) -> str | None:
    return next((a for a in arguments if a in _COMMANDS), None)


def whole_parser() -> argparse.ArgumentParser:
    """The parser of every command, each with all of its options."""
    return _parser((), is_whole=True)


def _parser(arguments: Sequence[str], *, is_whole: bool = False) -> argparse.ArgumentParser:
    parser = Parser(
        prog="zero-sizer",
        description="Know what a DeepSpeed job needs before you launch it.",
        allow_abbrev=False,
    )
    parser.example_of = ""
    parser.add_argument("-V", "--version", action="version", version=f"zero-sizer {__version__}")
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    named = _named(arguments)
    # A command that stands first is the only one to be told apart: a cold start stays short.
    listed = _COMMANDS if named is None or named != arguments[0] else (named,)
    for command in listed:
        summary = _COMMANDS[command]
        subparser = subparsers.add_parser(
            command, help=summary, description=summary, allow_abbrev=False
        )
        if is_whole or command == named:  # nor is any other imported
            import_module(f"zero_sizer.cli.{command}").configure(subparser)
            subparser.set_defaults(parser=subparser)
            subparser.example_of = command
    return parser
