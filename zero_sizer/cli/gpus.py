"""``zero-sizer gpus``: the GPUs that are known, and which of them carry a model."""

import argparse
from typing import TYPE_CHECKING

from zero_sizer.cli.exit_codes import DOES_NOT_FIT, OK
from zero_sizer.cli.options import add_format_option, add_option, flags_from
from zero_sizer.cli.progress import Progress
from zero_sizer.config.workload import INFERENCE, TRAINING
from zero_sizer.errors import InputError
from zero_sizer.job import fields
from zero_sizer.report.formats import reporter

if TYPE_CHECKING:
    from zero_sizer.hardware.cluster import Gpu

_IMAGES = ("images", "max_pixels", "min_pixels", "scaled_by")
_LENGTHS = ("seq_len", *_IMAGES, "audio_seconds", "target_len")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_format_option(parser, "gpus")
    parser.add_argument("--model", help="which of them carry it, and how many that takes")
    parser.add_argument(
        "--task",
        choices=(TRAINING, INFERENCE),
        default=TRAINING,
        help="with --model: what they carry it for",
    )
    group = parser.add_argument_group("with --model: one sample")
    for option in fields.WORKLOAD:
        if option.name in _LENGTHS:
            add_option(group, option)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print one row a GPU."""
    if arguments.model is not None:
        return _carriers(arguments)
    lengths = (name for name in _LENGTHS if getattr(arguments, name) is not None)
    flag = "--task" if arguments.task == INFERENCE else _flag(next(lengths, ""))
    if flag:
        raise InputError("says nothing without a model", remedy="add --model", where=flag)
    from zero_sizer.hardware.catalog import all_gpus

    reporter("gpus", arguments.format)(all_gpus())
    return OK


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}" if name else ""


def _carriers(arguments: argparse.Namespace) -> int:
    """How many of each GPU carry the model; 1 where none can."""
    from zero_sizer.hardware.catalog import all_gpus

    every = tuple(all_gpus())
    if arguments.task == INFERENCE:
        return _of_inference(arguments, every)
    from zero_sizer.advise.cards import cards_of

    said = flags_from(argparse.Namespace(**{**vars(arguments), "task": None}))
    with Progress("sizing", len(every)) as progress:
        found = cards_of(every, said, progress.tick)
    reporter("carriers", arguments.format)(found)
    return OK if found.refusal is None else DOES_NOT_FIT


def _of_inference(arguments: argparse.Namespace, every: tuple["Gpu", ...]) -> int:
    from zero_sizer.advise.inference_cards import carriers

    for name in _LENGTHS[1:]:
        if getattr(arguments, name) is not None:
            raise InputError("not with inference", remedy="leave it out", where=_flag(name))
    found = []
    with Progress("sizing", len(every)) as progress:
        for row in carriers(every, arguments.model, arguments.seq_len):
            found.append(row)
            progress.tick()
    report = reporter("inference-carriers", arguments.format)
    report(arguments.model, arguments.seq_len, found)
    return OK
