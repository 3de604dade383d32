"""``zero-sizer choose``: the best stage, offload, batch and buffers on a given cluster."""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path

from zero_sizer.advise.choose import Choice
from zero_sizer.advise.largest import WHAT
from zero_sizer.advise.launch import KINDS, Files
from zero_sizer.advise.limits import MARGINS
from zero_sizer.advise.start import Start, start_of
from zero_sizer.cli import options
from zero_sizer.cli.exit_codes import DOES_NOT_FIT, OK, of_verdict
from zero_sizer.cli.output import add_output_option, answer_to, require_output
from zero_sizer.cli.progress import ticking
from zero_sizer.errors import InputError
from zero_sizer.job.read import Job
from zero_sizer.job.values import share
from zero_sizer.questions.choose import Wishes, choose, largest
from zero_sizer.questions.jobs import job_of
from zero_sizer.report.formats import FORMATS, reporter
from zero_sizer.report.verdict import WORDS
from zero_sizer.util.files import require_writable, write_text
from zero_sizer.util.spelling import did_you_mean, shown


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    options.add_job_options(parser, needs_config=False)
    options.add_format_option(parser, "choose")
    add_choice_options(parser)
    parser.add_argument(
        "--largest",
        choices=(*WHAT, "batch-size"),
        help="instead of the fastest plan, the largest of this that `check` calls a fit",
    )
    add_output_option(parser)
    group = parser.add_argument_group("what to do with the plan")
    group.add_argument(
        "--emit",
        metavar="FILE",
        help="write the chosen DeepSpeed config here; a job for `check` where FILE ends in .yaml",
    )
    group.add_argument("--emit-job", metavar="FILE", help="write the chosen job as a YAML here")
    group.add_argument(
        "--emit-launch",
        metavar="HOW[=FILE]",
        action="append",
        help=f"print, or write to FILE, what starts it: {', '.join(KINDS)}; may be repeated",
    )
    group.add_argument(
        "--emit-args", metavar="FILE", help="write the TrainingArguments it requires as JSON here"
    )
    group.add_argument(
        "--force", action="store_true", help="overwrite files that exist, CONFIG included"
    )
    parser.set_defaults(run=run)


def add_choice_options(parser: argparse.ArgumentParser) -> None:
    """Declares the options that `choose` and `size` share."""
    group = parser.add_argument_group("choice")
    group.add_argument(
        "--train-batch-size",
        type=options.count,
        metavar="SAMPLES",
        help="of one optimizer step over all GPUs; free where neither this nor the config says",
    )
    group.add_argument(
        "--margin",
        type=_share,
        help="share of every device to leave free "
        f"({', '.join(f'{part:g} of {device.value}' for device, part in MARGINS.items())})",
    )


def job_from(arguments: argparse.Namespace) -> Job:
    """The job; CONFIG may be left out."""
    asks_largest = getattr(arguments, "largest", None) is not None  # `size` has no such option
    flags = options.flags_from(arguments)
    return job_of(arguments.config, flags, finds_config=True, takes_inference=asks_largest)


def wishes_from(arguments: argparse.Namespace) -> Wishes:
    """The options of `choose` and `size` beside the job."""
    given = {f.name: getattr(arguments, f.name) for f in fields(Wishes) if f.name in arguments}
    return Wishes(**given)


def run(arguments: argparse.Namespace) -> int:
    """Print the choice, write its config; the exit code is that of ``check`` on it."""
    launches, written = list(_launches(arguments)), dict[str, str]()
    require_output(arguments.output, arguments.config)
    if arguments.output is not None:
        written[os.path.realpath(arguments.output)] = "--output"
    for path, flag in (
        (arguments.emit, "--emit"),
        (arguments.emit_job, "--emit-job"),
        (arguments.emit_args, "--emit-args"),
        *((path, "--emit-launch") for _, path in launches),
    ):
        require_writable(path, flag)
        _require_new(path, flag, written, force=arguments.force)
    job = job_from(arguments)
    if arguments.largest is not None:
        return _largest(job, arguments)
    flags = options.flags_from(arguments)
    choice = choose(job, flags, wishes_from(arguments), ticking)
    start = _start(choice, launches, arguments)
    with answer_to(arguments.output, WORDS[choice.verdict]):
        reporter("choose", arguments.format)(choice, start)
    _emit(choice, arguments)
    _write_start(start, arguments)
    if choice.run is not None and choice.run.marks:
        return DOES_NOT_FIT
    return of_verdict(choice.verdict)


def _largest(job: Job, arguments: argparse.Namespace) -> int:
    """Print the largest; 1 where not even the smallest fits."""
    for flag in ("--emit", "--emit-job", "--emit-launch", "--emit-args"):
        if getattr(arguments, flag[2:].replace("-", "_")) is not None:
            raise InputError("not with --largest", remedy="leave one of the two out", where=flag)
    if arguments.format not in FORMATS["largest"]:
        raise InputError(
            f"--format {arguments.format} has no form for it",
            remedy=f"take {' or '.join(FORMATS['largest'])}",
            where="--largest",
        )
    found = largest(job, options.flags_from(arguments), arguments.largest)
    words = f"largest {arguments.largest}: {'nothing fits' if found.value is None else found.value}"
    with answer_to(arguments.output, words):
        reporter("largest", arguments.format)(found, job)
    return OK if found.value is not None else DOES_NOT_FIT


def _require_new(path: str | None, flag: str, written: dict[str, str], *, force: bool) -> None:
    """Refuses to write over a file, unless told to, and to write two files into one.

    Args:
        path: the file; None: nothing is written.
        flag: which names it.
        written: real path -> flag, of the files before; this one is added.
        force: files may be overwritten.

    Raises:
        InputError: the file exists, or is written twice.
    """
    if path is None:
        return
    real = os.path.realpath(path)
    is_file = not os.path.exists(real) or os.path.isfile(real)  # no device
    if is_file and real in written:
        raise InputError(f"{path} is the file of {written[real]}, too", where=flag)
    written[real] = flag
    if os.path.isfile(real) and not force:
        remedy = "name another file, or add --force to overwrite it"
        raise InputError(f"{path} exists", remedy=remedy, where=flag)


def _emit(choice: Choice, arguments: argparse.Namespace) -> None:
    from zero_sizer.report import emitted

    for path, is_job in ((arguments.emit, False), (arguments.emit_job, True)):
        if path is None:
            continue
        if choice.winner is None:
            print(f"{path} not written: nothing fits", file=sys.stderr)
            continue
        is_yaml = is_job or Path(path).suffix.lower() in (".yaml", ".yml")
        text = (
            emitted.job_text(choice, choice.winner, arguments)
            if is_yaml
            else emitted.config_text(choice, choice.winner)
        )
        write_text(Path(path), text)
        if arguments.format == "text":
            emitted.show_emitted(choice, choice.winner, path)


def _launches(arguments: argparse.Namespace) -> Iterator[tuple[str, str | None]]:
    """(Launcher, file or None) of each ``--emit-launch``.

    Raises:
        InputError: a launcher that is not written.
    """
    for text in arguments.emit_launch or ():
        kind, equals, path = text.partition("=")
        if kind not in KINDS or (equals and not path):
            hint = did_you_mean(kind, KINDS) if kind not in KINDS else "name the file after ="
            raise InputError(
                f"{shown(text)} is not HOW or HOW=FILE, with HOW one of {', '.join(KINDS)}",
                remedy=hint,
                where="--emit-launch",
            )
        yield kind, path or None


def _start(
    choice: Choice, launches: Sequence[tuple[str, str | None]], arguments: argparse.Namespace
) -> Start:
    """The launcher lines and arguments of the plan to run; none where there is none."""
    winner, path = choice.winner, arguments.emit_args
    asked = [path for _, path in launches if path] + ([path] if path else [])
    if winner is None:
        return Start(missing=tuple(asked))
    is_json = arguments.emit and Path(arguments.emit).suffix.lower() not in (".yaml", ".yml")
    files = Files(
        config=arguments.emit if is_json else Files.config,
        arguments=path,
        hostfile=arguments.hostfile or choice.search.job.said.hostfile,
    )
    return start_of(choice, winner, launches, files)


def _write_start(start: Start, arguments: argparse.Namespace) -> None:
    """Writes what has a file."""
    from zero_sizer.report import emitted

    for path in start.missing:
        print(f"{path} not written: nothing fits", file=sys.stderr)
    for path, text in emitted.start_files(start):
        write_text(Path(path), text)
    if arguments.format == "text":
        emitted.show_start_files(start)


def _share(text: str) -> float:
    try:
        return share(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
