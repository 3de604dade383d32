"""The largest of something for a reader at a terminal, and as JSON."""

import json
from typing import Any

from zero_sizer.advise.largest import Largest
from zero_sizer.config.workload import INFERENCE
from zero_sizer.hardware.device import Device
from zero_sizer.job.read import Job
from zero_sizer.report.document import print_document
from zero_sizer.report.table import show_line
from zero_sizer.report.verdict import NOTHING_RUNS, WORDS, show_job, show_words
from zero_sizer.units import format_gib

_WORDS = {
    "micro-batch": "micro batch",
    "seq-len": "sequence length",
    "batch-size": "batch size",
    "model": "model",
    "lora-rank": "LoRA rank (of all linear layers)",
}


def show_largest(found: Largest, job: Job) -> None:
    """Print the answer, what the next larger one comes to, and the config it needs."""
    gpu = job.cluster.gpu.name if job.cluster.gpu else "GPUs"
    where = f"on {job.cluster.layout} {gpu}"
    if found.refusal is not None:
        show_words(NOTHING_RUNS, [f"{found.refusal.message}; {found.refusal.remedy}"])
        show_line(f"{job.model.name} {where}")
        return
    if found.sizing is None:
        show_line(f"NOTHING FITS: not even the smallest {_WORDS[found.what]} {where}")
        return
    flags = f" and {' '.join(found.flags)} (nothing fits without)" if found.flags else ""
    show_line(f"LARGEST {_WORDS[found.what].upper()}: {found.value}, with {found.strategy}{flags}")
    show_job(found.sizing)
    if found.beyond is not None:
        value, verdict = found.beyond
        show_line(f"at {value}, `check` says {WORDS[verdict]}")
    elif found.limit:
        show_line(found.limit)
    peaks = found.sizing.peaks
    uses = (f"{d.value} {format_gib(peaks[d].num_bytes)}" for d in Device if peaks[d].num_bytes)
    show_line("peak: " + ", ".join(uses))
    if job.workload.task == INFERENCE:
        return
    show_line(
        "nothing is left free beyond what `check` counts; the settings are the most frugal ones, "
        "not the fastest: `zero-sizer choose` without --largest finds those"
    )
    print(json.dumps(_zero(found), indent=2))


def _zero(found: Largest) -> dict[str, Any]:
    values = found.sizing.job.document.values if found.sizing else {}
    return {"zero_optimization": values.get("zero_optimization", {})}


def print_largest(found: Largest, job: Job) -> None:
    """Print the answer as JSON."""
    print_document(largest_mapping(found, job))


def largest_mapping(found: Largest, job: Job) -> dict[str, Any]:
    """The answer as JSON."""
    sizing = found.sizing
    return {
        "schema_version": 1,
        "what": found.what,
        "largest": found.value,
        "strategy": found.strategy,
        "flags": list(found.flags),
        "beyond": None
        if found.beyond is None
        else {"value": found.beyond[0], "verdict": found.beyond[1].value},
        "limit": found.limit,
        "refusal": "" if found.refusal is None else found.refusal.message,
        "checkpointing": None if sizing is None else sizing.job.workload.checkpointing,
        "config": None if sizing is None else sizing.job.document.values,
        "peak_bytes": {}
        if sizing is None
        else {device.value: sizing.peaks[device].num_bytes for device in Device},
        "nodes": job.cluster.nodes,
        "gpus_per_node": job.cluster.gpus_per_node,
    }
