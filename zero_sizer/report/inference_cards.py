"""Which GPUs carry a model's inference, for a reader at a terminal and as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from zero_sizer.advise.cards import Enough
from zero_sizer.advise.inference_cards import COUNTS, NEW_TOKENS, PROMPT, WAYS
from zero_sizer.hardware.cluster import Gpu
from zero_sizer.report.table import show_line, show_table
from zero_sizer.units import format_gib

Row = tuple[Gpu, dict[str, Enough | None]]


def show_cards(model: str, seq_len: int | None, rows: Sequence[Row]) -> None:
    """Print how many of each GPU it takes."""
    length = f"{PROMPT} tokens and {NEW_TOKENS} new ones (--seq-len: both together)"
    show_line(f"{model}: the fewest GPUs that carry its inference")
    show_line(
        f"assumed: transformers' generate, {f'{seq_len} tokens' if seq_len else length}, one "
        "sequence a GPU, sdpa attention; 16 bits: bf16 (fp16 before Ampere); several GPUs share "
        "the weights by ZeRO-3, packed weights lie on one"
    )
    print()
    table = [(gpu.name, *(_cell(found[way]) for way in WAYS)) for gpu, found in rows]
    show_table(("gpu", *WAYS), table)
    print()
    show_line(
        "int8: bitsandbytes' LLM.int8; int4: nf4, double quantized; in parentheses: of each GPU"
    )
    show_line(f"-: more than {COUNTS[-1]}, or of packed weights more than one")


def _cell(found: Enough | None) -> str:
    return "-" if found is None else f"{found.gpus} ({format_gib(found.gpu_bytes)})"


def print_cards(model: str, seq_len: int | None, rows: Sequence[Row]) -> None:
    """Print the counts as JSON."""
    gpus = [
        {
            "name": gpu.name,
            "fewest": {way: None if e is None else asdict(e) for way, e in found.items()},
        }
        for gpu, found in rows
    ]
    answer = {"schema_version": 1, "model": model, "task": "inference", "gpus": gpus}
    print(json.dumps(answer, indent=1))
