"""The options every command about a job shares."""

import argparse
from typing import Any

from zero_sizer.config.workload import INFERENCE
from zero_sizer.errors import InputError
from zero_sizer.job.fields import GOAL, OPTIONS, TRAINING_RUN, Field, Flags
from zero_sizer.job.read import Job
from zero_sizer.job.values import TOKENS_OF_K, OneOf, Whole, checkpointing, in_thousands, yes_or_no
from zero_sizer.models.changes.freeze import patterns
from zero_sizer.questions.jobs import flags_of, job_of
from zero_sizer.report.formats import FORMATS

_TITLES = {
    "cluster": "cluster",
    "workload": "workload: what the files cannot say",
    INFERENCE: "inference: what --task inference runs",
    TRAINING_RUN: "training run: time, energy and price",
    GOAL: "goal of the training run",
}


def add_job_options(
    parser: argparse.ArgumentParser, *, needs_config: bool = True, leave_out: tuple[str, ...] = ()
) -> None:
    """CONFIG and the shared options of the contract.

    Args:
        parser: of the command.
        needs_config: CONFIG must be given.
        leave_out: groups of options that the command has no use for.
    """
    # All of them by name would be a screen of its own.
    parser.usage = f"%(prog)s {'CONFIG' if needs_config else '[CONFIG]'} [options]"
    parser.add_argument(
        "config",
        metavar="CONFIG",
        nargs=None if needs_config else "?",
        help="a DeepSpeed JSON, a job YAML, or what you train with: a file of accelerate, "
        "LLaMA-Factory, axolotl, ms-swift, trl, TrainingArguments, an sbatch or shell script",
    )
    groups: dict[str, Any] = {
        name: parser.add_argument_group(title)
        for name, title in _TITLES.items()
        if name not in leave_out
    }
    for option in OPTIONS:
        if option.group in leave_out:
            continue
        group = groups.get(option.group, parser)
        add_option(group, option)
        if option.check is checkpointing:
            group.add_argument("--checkpointing-how", **_HOW)


def add_option(group: Any, option: Field) -> None:
    """A row of the table as an option of a command."""
    names = (f"-{option.short}", option.flag) if option.short else (option.flag,)
    group.add_argument(*names, **_settings(option))


_HOW: dict[str, Any] = {
    "metavar": "WORDS",
    "help": "on, and: every-K or first-K blocks; offload; reentrant or deepspeed (comma between)",
}


def _settings(option: Field) -> dict[str, Any]:
    """What argparse makes of a row of the table."""
    found: dict[str, Any] = {"help": option.help or None}
    if option.metavar:
        found["metavar"] = option.metavar
    check = option.check
    if isinstance(check, OneOf):
        found["choices"] = check.choices
    elif isinstance(check, Whole):
        found["type"] = tokens if check.thousand else count if check.lowest else whole
    elif check in (yes_or_no, checkpointing):
        found |= {"action": argparse.BooleanOptionalAction, "default": None}
    elif check is patterns:
        found["action"] = "append"
    elif check is bool:
        found |= {"action": "store_const", "const": True}
    return found


def add_format_option(parser: argparse.ArgumentParser, command: str) -> None:
    """``--format``, of the formats that a command's answer has."""
    parser.add_argument(
        "-f", "--format", choices=tuple(FORMATS[command]), default="text", help="of the answer"
    )


def job_from(arguments: argparse.Namespace) -> Job:
    """The job of training that the parsed options describe.

    Raises:
        InputError: it cannot be read, or its task is another.
    """
    return job_of(arguments.config, flags_from(arguments))


def job_of_any_task(arguments: argparse.Namespace) -> Job:
    """The job that the parsed options describe, of inference too.

    Raises:
        InputError: it cannot be read.
    """
    return job_of(arguments.config, flags_from(arguments), takes_inference=True)


def require_config(arguments: argparse.Namespace, flags: Flags) -> None:
    """Stops at a job of training without a CONFIG; inference needs none.

    Raises:
        InputError: there is none.
    """
    if arguments.config is None and flags.task != INFERENCE:
        raise InputError(
            "the following arguments are required: CONFIG",
            remedy="`zero-sizer check -h` lists what there is; --task inference needs none",
        )


def flags_from(arguments: argparse.Namespace) -> Flags:
    """The shared options that were given."""
    return flags_of(vars(arguments))


def tokens(text: str) -> int:
    """A whole number from 1 on; ``4k`` is 4096."""
    return count(str(in_thousands(text, TOKENS_OF_K)))


def whole(text: str) -> int:
    """A whole number from 0 on."""
    return 0 if text.strip() == "0" else count(text)


def count(text: str) -> int:
    """A whole number from 1 on."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if not 0 < value < 2**40:
        raise argparse.ArgumentTypeError(f"{text} is out of range; a count is 1 or more")
    return value
