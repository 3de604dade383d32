"""``zero-sizer gpus``: the GPUs that are known, and which of them carry a model."""

import argparse

from zero_sizer.cli.options import add_format_option, tokens
from zero_sizer.cli.progress import Progress
from zero_sizer.config.workload import INFERENCE, TRAINING
from zero_sizer.errors import InputError
from zero_sizer.report.formats import reporter

_REPORTS = {TRAINING: "carriers", INFERENCE: "inference-carriers"}


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
    parser.add_argument("--seq-len", type=tokens, metavar="TOKENS", help="with --model")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print one row a GPU."""
    if arguments.model is not None:
        return _carriers(arguments)
    if arguments.task == INFERENCE:
        raise InputError("says nothing without a model", remedy="add --model", where="--task")
    if arguments.seq_len is not None:
        raise InputError("says nothing without a model", remedy="add --model", where="--seq-len")
    from zero_sizer.hardware.catalog import all_gpus

    reporter("gpus", arguments.format)(all_gpus())
    return 0


def _carriers(arguments: argparse.Namespace) -> int:
    """How many of each GPU carry the model."""
    if arguments.task == INFERENCE:
        from zero_sizer.advise.inference_cards import carriers
    else:
        from zero_sizer.advise.cards import carriers
    from zero_sizer.hardware.catalog import all_gpus

    every = tuple(all_gpus())
    found = []
    with Progress("sizing", len(every)) as progress:
        for row in carriers(every, arguments.model, arguments.seq_len):
            found.append(row)
            progress.tick()
    reporter(_REPORTS[arguments.task], arguments.format)(arguments.model, arguments.seq_len, found)
    return 0
