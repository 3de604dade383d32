"""``zero-sizer guard -- LINE``: launches what fits, and refuses what does not."""

import argparse
import os
import re
import shutil
import sys
from typing import TYPE_CHECKING

from zero_sizer.cli import options
from zero_sizer.cli.exit_codes import DOES_NOT_FIT, OK, UNCERTAIN, exit_code
from zero_sizer.errors import InputError, UnsupportedError
from zero_sizer.job.fields import GOAL, TRAINING
from zero_sizer.questions.guard import Line, read, sized
from zero_sizer.report.formats import reporter
from zero_sizer.report.verdict import show_job, show_verdict
from zero_sizer.util.terminal import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

_ASSIGNMENT = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*=")
_OF_THE_SHELL = ("exec", "command", "time")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.epilog = (
        "What the line says (ranks, the DeepSpeed config, arguments of the Hugging Face Trainer) "
        "need not be said again; what it does not say stands in front of --. Exit codes: 1 "
        "refused, 2 bad usage, 3 could not tell; else that of the line, which takes this process' "
        "place."
    )
    options.add_job_options(parser, needs_config=False, leave_out=(TRAINING, GOAL))
    parser.usage = "%(prog)s [CONFIG] [options] -- LINE"
    parser.add_argument(
        "--allow-uncertain", action="store_true", help="launch where nobody can tell, too"
    )
    parser.add_argument(
        "--dry-run",
        choices=("simulated",),
        help="run the script on a simulated GPU first, and refuse it by what that shows, too",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Refuse the line, or become it."""
    words = arguments.script
    if not words:
        raise InputError("no launcher line after --", remedy="write -- torchrun ... train.py ARGS")
    program = _program(words)
    try:
        codes = _judged(arguments, words)
    except UnsupportedError as error:
        print(f"COULD NOT TELL   {error}")
        codes = [UNCERTAIN]
    if DOES_NOT_FIT in codes:
        return _refused(DOES_NOT_FIT)
    if UNCERTAIN in codes and not arguments.allow_uncertain:
        return _refused(UNCERTAIN)
    return _launch(program, words)


def _judged(arguments: argparse.Namespace, words: "Sequence[str]") -> list[int]:
    """Exit codes of the prediction, and of the dry run where one was asked for."""
    line = read(words, options.flags_from(arguments), arguments.config)
    if arguments.dry_run is not None and line.config is None:
        return [_dry_run(arguments, line)]  # it finds out for itself
    answer = sized(line)
    code = exit_code(answer.sizing)
    if code == OK:
        show_verdict(answer.sizing)
        show_job(answer.sizing)
    else:
        reporter("check", "text")(answer)
    if arguments.dry_run is None or code == DOES_NOT_FIT:
        return [code]
    ran = _dry_run(arguments, line)
    return [ran] if ran != UNCERTAIN else [code, ran]


def _dry_run(arguments: argparse.Namespace, line: Line) -> int:
    """What the script does on a simulated GPU, shown; its exit code."""
    from zero_sizer.cli import dryrun
    from zero_sizer.cli.exit_codes import of_verdict
    from zero_sizer.dryrun.answer import answer_of

    own = argparse.Namespace(script=list(line.words), how=arguments.dry_run, config=None)
    own.nodes, own.gpus_per_node = line.flags.nodes, line.flags.gpus_per_node
    own.gpu, own.host_memory = line.flags.gpu, line.flags.host_memory
    own.rank, own.steps, own.generate_tokens, own.debug = "worst", None, None, False
    own.trace = own.snapshot = None
    answer = answer_of(dryrun.of_script(own))
    reporter("dryrun", "text")(answer)
    return of_verdict(answer.verdict)


def _refused(code: int) -> int:
    why = "does not fit" if code == DOES_NOT_FIT else "--allow-uncertain launches it all the same"
    print(f"zero-sizer guard: not launched ({why})", file=sys.stderr)
    return code


def _program(words: "Sequence[str]") -> str:
    """Path of the program that the line starts, before any work is done for it.

    Raises:
        InputError: there is none.
    """
    left = [word for word in words if not _ASSIGNMENT.match(word) and word not in _OF_THE_SHELL]
    found = shutil.which(left[0]) if left else None
    if found is None:
        raise InputError(
            f"no program {one_line(left[0], 200)!r} to be found" if left else "no program in it",
            remedy="the line is started as it stands, without a shell",
            where="after --",
        )
    return found


def _launch(program: str, words: "Sequence[str]") -> int:
    """Becomes the line: its output, signals and exit code are those of this process."""
    left, environment = list(words), dict(os.environ)
    while _ASSIGNMENT.match(left[0]) or left[0] in _OF_THE_SHELL:
        name, equals, value = left.pop(0).partition("=")
        if equals:
            environment[name] = value
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(program, left, environment)
