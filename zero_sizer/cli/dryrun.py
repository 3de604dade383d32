"""``zero-sizer dryrun``: run the real engine for a few steps and record what lives when."""

import argparse
import importlib
import inspect
from typing import Any

from zero_sizer.cli import options
from zero_sizer.errors import UnsupportedError
from zero_sizer.witnesses.recording import Recording

HOWS = ("simulated", "solo", "launched")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    options.add_job_options(parser)
    options.add_format_option(parser)
    parser.add_argument("--how", choices=HOWS, required=True)
    add_run_options(parser)
    parser.add_argument("--output", metavar="FILE", help="write the recording (JSON) here")
    parser.set_defaults(run=run)


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """What every dry run can be told."""
    run_options = parser.add_argument_group("dry run")
    run_options.add_argument("--ranks", type=count, default=2, help="launched: processes (2)")
    run_options.add_argument("--layers", type=count, help="keep only this many layers of the model")
    run_options.add_argument("--steps", type=count, default=2, help="optimizer steps (2)")
    run_options.add_argument(
        "--timeout", type=seconds, default=600.0, metavar="SECONDS", help="then stop (600)"
    )


def count(text: str) -> int:
    """A whole number from 1 to a million."""
    if not text.isdecimal() or not 0 < int(text) <= 10**6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def seconds(text: str) -> float:
    """More than 0 seconds, at most a day."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None
    if not 0 < value <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 0 and 86400 seconds")
    return value


def run(arguments: argparse.Namespace) -> int:
    """Run, write the recording, show it."""
    recording = record(arguments, arguments.how)
    if arguments.output:
        recording.write(arguments.output)
    if arguments.format == "json":
        import json

        print(json.dumps(recording.to_json(), indent=1))
    else:
        from zero_sizer.report import recording as report

        report.show(recording)
        if arguments.output:
            print(f"\nrecording written to {arguments.output}")
    return 0


def record(arguments: argparse.Namespace, how: str) -> Recording:
    """The recording of one dry run.

    Raises:
        UnsupportedError: this kind of dry run is not there.
        WitnessError: the engine failed.
    """
    runner = _runner(how)
    wanted: dict[str, Any] = {
        name: getattr(arguments, name) for name in ("ranks", "layers", "steps", "timeout")
    }
    accepted = inspect.signature(runner).parameters
    settings = {name: value for name, value in wanted.items() if name in accepted}
    recording: Recording = runner(options.job_from(arguments), **settings)
    return recording


def _runner(how: str) -> Any:
    try:
        module = importlib.import_module(f"zero_sizer.witnesses.{how}")
        return module.run
    except (ImportError, AttributeError):
        raise UnsupportedError(f"--how {how} is not available in this version") from None
