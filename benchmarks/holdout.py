"""The step-time model on published runs that nothing was fitted to.

Of other frameworks, models and kernels than the runs of benchmarks/throughput.py; their facts and
what their sources leave open: tests/data/throughput_holdout.json. benchmarks/cross_validation.py
prints the table.
"""

import json
from collections.abc import Mapping
from typing import Any

import throughput

from zero_sizer import models
from zero_sizer.config import document
from zero_sizer.config.workload import Workload
from zero_sizer.hardware import catalog
from zero_sizer.hardware.cluster import Cluster
from zero_sizer.job.read import Job
from zero_sizer.models.spec import ModelSpec
from zero_sizer.speed import Case
from zero_sizer.speed.rates import table

DATA = throughput.ROOT / "tests" / "data" / "throughput_holdout.json"


def read() -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(DATA.read_text(encoding="utf-8"))
    return facts


def model_of(row: Mapping[str, Any], facts: Mapping[str, Any]) -> ModelSpec:
    """A bundled model, or GPT-3's architecture: MPT's, with learned positions and a tied head."""
    shape = facts["shapes"].get(row["model"])
    if shape is None:
        return models.load(row["model"])
    widths = (shape["hidden"], shape["layers"], shape["heads"])
    known = {"shapes": {row["model"]: widths}, "vocab": shape["vocab"], "shapes_source": ""}
    return throughput.mpt(row["model"], row["seq_len"], known)


def job_of(row: Mapping[str, Any], facts: Mapping[str, Any], kernel: str | None = None) -> Job:
    """The DeepSpeed job nearest to what the row's run did; ``kernel`` of attention as stated."""
    zero: dict[str, Any] = {"stage": row["stage"], "overlap_comm": True}
    if "hpz" in row:
        zero["zero_hpz_partition_size"] = row["hpz"]
    rates = {"inter_node_gb_per_s": row["inter_node_gb_per_s"]} if "hpz" in row else {}
    if row["fp8"]:
        kept = table()["matmul"]["training"][Case.EXPECTED]
        rates["matmul_tflops"] = throughput.FP8_TFLOPS * kept
    return Job(
        document=document.from_mapping(
            {
                "bf16": {"enabled": True},
                "optimizer": {"type": "AdamW", "params": {"lr": 1e-4}},
                "zero_optimization": zero,
                "train_micro_batch_size_per_gpu": row["micro_batch"],
                "gradient_accumulation_steps": row["grad_accum"],
            }
        ),
        model=model_of(row, facts),
        cluster=Cluster(
            nodes=row["nodes"],
            gpus_per_node=row["gpus_per_node"],
            gpu=catalog.find(row["gpu"]),
            rates=rates,
            origins={},
        ),
        workload=Workload(
            seq_len=row["seq_len"],
            checkpointing=row["checkpointing"],
            attention="flash",
            attention_kernel=kernel,
            loss="fused" if row["fused"] else None,
            kernels="liger" if row["fused"] else None,
        ),
        origins={},
    )


def measured(row: Mapping[str, Any], model: ModelSpec) -> float:
    """Tokens a second and GPU."""
    if "model_tflops" not in row:
        return float(row["tokens_per_s_per_gpu"])
    attention = 12 * (model.arch.num_layers or 0) * (model.arch.hidden or 0) * row["seq_len"]
    return float(row["model_tflops"] * 1e12 / (6 * model.num_params + attention))


def kernel_of(row: Mapping[str, Any]) -> str:
    """Generation of FlashAttention that the run had: where the source says nothing, the second."""
    return "flash-1" if row["note"] == "FlashAttention" else "flash-2"


def results(*, is_stated: bool = False) -> list[throughput.Result]:
    """Every row beside its prediction; ``is_stated``: with the attention kernel that it ran."""
    facts = read()
    jobs = [
        (row, job_of(row, facts, kernel_of(row) if is_stated else None)) for row in facts["rows"]
    ]
    return [throughput.result(row, job, measured(row, job.model)) for row, job in jobs]


def table_of(found: list[throughput.Result], stated: list[throughput.Result]) -> str:
    """Markdown: row by row, and the error with the attention kernel stated."""
    sources = read()["sources"]
    head = ["source", "run", "GPUs", "tokens", "measured tokens/s", "low", "expected", "high"]
    head += ["error", "kernel stated"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for result, known in zip(found, stated, strict=True):
        row = result.row
        name = sources[row["source"]]["title"].partition(",")[0].partition(" (")[0]
        run = " ".join(filter(None, [row["model"], "fp8" if row["fp8"] else "", row["note"]]))
        figures = " | ".join(f"{f:,.0f}" for f in (result.measured, *result.predicted))
        lines.append(
            f"| {name} | {run} | {row['nodes'] * row['gpus_per_node']} {row['gpu']} "
            f"| {row['seq_len']} | {figures} | {result.error:+.1%} "
            f"| {known.error:+.1%} |"
        )
    inside = sum(r.predicted[0] <= r.measured <= r.predicted[2] for r in found)
    median, known_median = map(throughput.median_error, (found, stated))
    lines += [
        "",
        f"Median error {median:.1%}, with the attention kernel stated {known_median:.1%}; "
        f"{inside} of {len(found)} inside low..high.",
    ]
    return "\n".join(lines)
