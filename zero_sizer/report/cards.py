"""Which GPUs carry a model, for a reader at a terminal and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from zero_sizer import models
from zero_sizer.advise.cards import COUNTS, GPUS_A_NODE, UNKNOWN, WAYS, Enough, name_of
from zero_sizer.hardware.cluster import Gpu
from zero_sizer.models.feeds import feed_of
from zero_sizer.report.document import print_document
from zero_sizer.report.table import show_line, show_table
from zero_sizer.units import format_gib

Row = tuple[Gpu, dict[str, Enough | None]]


def show_cards(model: str, seq_len: int | None, rows: Sequence[Row]) -> None:
    """Print how many of each GPU it takes."""
    length = f"{seq_len} tokens" if seq_len else "2048 tokens, or the model's own limit (--seq-len)"
    feed = feed_of(models.load(model))
    if feed is not None:
        length = f"{length} with {feed.brief}" if feed.has_tokens else feed.brief
    show_line(f"{model}: the fewest GPUs that carry its training, in nodes of {GPUS_A_NODE}")
    show_line(
        f"assumed: AdamW, bf16 (fp16 before Ampere, fp32 before Volta), {length}, one sample a "
        "GPU, activation checkpointing, the most frugal settings; host memory as much as the job "
        "itself takes (a node, in parentheses; `size` adds the processes and says what to buy)"
    )
    print()
    ways = [name_of(way) for way in WAYS]
    table = [(gpu.name, *(_cell(found[way]) for way in ways)) for gpu, found in rows]
    show_table(("gpu", *ways), table)
    print()
    show_line("LoRA: rank 16 on all linear layers; QLoRA: the same over nf4, double quantized")
    show_line(f"-: more than {COUNTS[-1]}, or DeepSpeed would not run it; powers of two were tried")
    if any(UNKNOWN in found.values() for _, found in rows):
        show_line(
            f"?: no profile of {model} says what it keeps there: `zero-sizer check --model {model} "
            "--gpu NAME`, with torch, traces one"
        )


def _cell(found: Enough | None) -> str:
    if found is None or found == UNKNOWN:
        return "-" if found is None else "?"
    return f"{found.gpus} (host {format_gib(found.host_bytes)})"


def print_cards(model: str, seq_len: int | None, rows: Sequence[Row]) -> None:
    """Print the counts as JSON."""
    print_document(_mapping(model, rows))


def _mapping(model: str, rows: Sequence[Row]) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "model": model,
        "gpus": [
            {
                "name": gpu.name,
                "fewest": {
                    way: None if e is None or e == UNKNOWN else asdict(e)
                    for way, e in found.items()
                },
                "unknown": [way for way, e in found.items() if e == UNKNOWN],
            }
            for gpu, found in rows
        ],
    }
