"""``zero-sizer gpus``: the GPUs that are known, and which of them carry a model."""

import argparse

from zero_sizer.cli.options import add_format_option, count
from zero_sizer.cli.progress import Progress
from zero_sizer.errors import InputError


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_format_option(parser)
    parser.add_argument("--model", help="which of them carry it, and how many that takes")
    parser.add_argument("--seq-len", type=count, metavar="TOKENS", help="with --model")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print one row a GPU."""
    if arguments.model is not None:
        return _carriers(arguments)
    if arguments.seq_len is not None:
        raise InputError("says nothing without a model", remedy="add --model", where="--seq-len")
    from zero_sizer.hardware.catalog import all_gpus

    if arguments.format == "json":
        import json
        from dataclasses import asdict

        listed = {"schema_version": 1, "gpus": [asdict(gpu) for gpu in all_gpus()]}
        print(json.dumps(listed, indent=1))
        return 0
    from zero_sizer.report.table import show_table
    from zero_sizer.units import format_gib

    rows = [
        (
            gpu.name,
            gpu.label,
            format_gib(gpu.visible_bytes) + ("*" if gpu.visible_note else ""),
            f"{gpu.peak_tflops.get('bf16', gpu.peak_tflops.get('fp16', 0)):g}",
            f"{gpu.intra_node_gb_per_s:g}",
        )
        for gpu in all_gpus()
    ]
    heads = ("gpu", "card", "PyTorch sees", "16-bit TFLOP/s", "node GB/s")
    show_table(heads, rows, right=(2, 3, 4))
    print("* the memory on the box: nobody published what PyTorch sees")
    return 0


def _carriers(arguments: argparse.Namespace) -> int:
    """How many of each GPU carry the model."""
    from zero_sizer.advise.cards import carriers
    from zero_sizer.hardware.catalog import all_gpus
    from zero_sizer.report import cards

    every = tuple(all_gpus())
    found = []
    with Progress("sizing", len(every)) as progress:
        for row in carriers(every, arguments.model, arguments.seq_len):
            found.append(row)
            progress.tick()
    if arguments.format == "json":
        import json

        print(json.dumps(cards.cards_mapping(arguments.model, found), indent=1))
    else:
        cards.show_cards(arguments.model, arguments.seq_len, found)
    return 0
