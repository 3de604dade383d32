"""Which GPUs carry a model, for a reader at a terminal and as JSON."""

from dataclasses import asdict
from typing import Any

from zero_sizer.advise.cards import COUNTS, GPUS_A_NODE, UNKNOWN, WAYS, Cards, Enough, name_of
from zero_sizer.report.document import print_document
from zero_sizer.report.table import show_line, show_table
from zero_sizer.report.verdict import NOTHING_RUNS, show_words
from zero_sizer.units import format_gib


def show_cards(found: Cards) -> None:
    """Print how many of each GPU it takes."""
    model = found.model
    if found.refusal is not None:
        show_words(NOTHING_RUNS, [f"{found.refusal.message}; {found.refusal.remedy}"])
        show_line(f"{model} on {len(found.rows)} GPUs")
        return
    show_line(f"{model}: the fewest GPUs that carry its training, in nodes of {GPUS_A_NODE}")
    show_line(
        f"assumed: AdamW, bf16 (fp16 before Ampere, fp32 before Volta), {found.brings}, one sample "
        "a GPU, activation checkpointing, the most frugal settings; host memory as much as the job "
        "itself takes (a node, in parentheses; `size` adds the processes and says what to buy); "
        "no margin is kept free, which `choose` and `size` do"
    )
    if found.are_unknown:
        show_line(
            f"?: no profile says what {model} keeps there: `zero-sizer check CONFIG --model "
            f"{model} --gpu NAME`, with torch, traces one"
        )
    print()
    ways = [name_of(way) for way in WAYS]
    table = [(gpu.name, *(_cell(row[way]) for way in ways)) for gpu, row in found.rows]
    show_table(("gpu", *ways), table)
    print()
    show_line("LoRA: rank 16 on all linear layers; QLoRA: the same over nf4, double quantized")
    for line in notes(found):
        show_line(line)
    show_line(f"-: more than {COUNTS[-1]}, or DeepSpeed would not run it; powers of two were tried")
    if found.are_unknown:
        show_line("?: nothing bounds what the model keeps there (see above)")


def notes(found: Cards) -> list[str]:
    """Why packed weights take more GPUs than the same weights in 16 bits, where they do."""
    if not found.takes_more_packed:
        return []
    return [
        "QLoRA takes more than LoRA where more GPUs do not help it: transformers puts the whole "
        f"packed model ({format_gib(found.packed_bytes)} of codes) on every GPU before stage 3 "
        "partitions it, and products of 4-bit weights keep codes once gathered until backward; "
        "LoRA's weights are partitioned from the start and given back after use"
    ]


def _cell(found: Enough | None) -> str:
    if found is None or found == UNKNOWN:
        return "-" if found is None else "?"
    return f"{found.gpus} (host {format_gib(found.host_bytes)})"


def print_cards(found: Cards) -> None:
    """Print the counts as JSON."""
    print_document(_mapping(found))


def _mapping(cards: Cards) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "model": cards.model,
        "refusal": "" if cards.refusal is None else cards.refusal.message,
        "notes": notes(cards),
        "gpus": [
            {
                "name": gpu.name,
                "fewest": {
                    way: None if e is None or e == UNKNOWN else asdict(e)
                    for way, e in found.items()
                },
                "unknown": [way for way, e in found.items() if e == UNKNOWN],
            }
            for gpu, found in cards.rows
        ],
    }
