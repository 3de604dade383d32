"""``zero-sizer gpus``: the GPUs that are known."""

import argparse

from zero_sizer.cli.options import add_format_option


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_format_option(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print one row a GPU."""
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
