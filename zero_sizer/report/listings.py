"""Listings of what is bundled: GPUs and models, for a reader at a terminal and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict

from zero_sizer.hardware.cluster import Gpu
from zero_sizer.models import ModelRow
from zero_sizer.report.document import print_document
from zero_sizer.report.table import show_line, show_table
from zero_sizer.units import format_gib


def show_gpus(gpus: Sequence[Gpu]) -> None:
    """Print one row a GPU."""
    rows = [
        (
            gpu.name,
            gpu.label,
            format_gib(gpu.visible_bytes) + ("*" if gpu.visible_note else ""),
            f"{_sixteen_bit(gpu):g}",
            f"{gpu.intra_node_gb_per_s:g}",
        )
        for gpu in gpus
    ]
    heads = ("gpu", "card", "PyTorch sees", "16-bit TFLOP/s", "node GB/s")
    show_table(heads, rows, right=(2, 3, 4))
    show_line("* nobody published what PyTorch sees: nvidia-smi's figure, or the memory on the box")


def _sixteen_bit(gpu: Gpu) -> float:
    """The best 16-bit peak in TFLOP/s; that of fp32 where 16 bits are no faster."""
    peaks = gpu.peak_tflops
    return max(peaks[dtype] for dtype in ("bf16", "fp16", "fp32") if dtype in peaks)


def print_gpus(gpus: Sequence[Gpu]) -> None:
    """Print the table as JSON."""
    print_document({"schema_version": 1, "gpus": [asdict(gpu) for gpu in gpus]})


def show_models(models: Sequence[ModelRow]) -> None:
    """Print one row a model."""
    rows = [
        (r.name, f"{r.params:,}", str(r.layers or "-"), str(r.hidden or "-"), r.source)
        for r in models
    ]
    show_table(("model", "parameters", "layers", "hidden", "source"), rows, right=(1, 2, 3))


def print_models(models: Sequence[ModelRow]) -> None:
    """Print the list as JSON."""
    print_document({"schema_version": 1, "models": [asdict(row) for row in models]})
