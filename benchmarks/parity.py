"""The ledger beside the simulated engine, over hundreds of jobs: error per device and phase.

    python benchmarks/parity.py [--jobs N] [--seed S] [--write]

Every job is one rank of a full-width model cut to a few blocks, run by the real engine on a
simulated GPU for two optimizer steps; predicted and simulated peaks of each phase of the last step
are compared, without the workspace that cuBLAS takes, which fake tensors never ask for. ``--write``
puts the table into docs/limits.md. Jobs are drawn at random, the same ones for the same seed; a job
that DeepSpeed or the model refuses is drawn again.
"""

import argparse
import os
import random
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from zero_sizer import models
from zero_sizer.config import document
from zero_sizer.config.workload import Workload
from zero_sizer.errors import ZeroSizerError
from zero_sizer.features import ENTRIES
from zero_sizer.hardware.cluster import Cluster
from zero_sizer.job import Job
from zero_sizer.ledger import evaluate
from zero_sizer.moments import STEPPING, Phase
from zero_sizer.peak import phase_peaks, totals
from zero_sizer.plan import Device, Plan
from zero_sizer.sizing import size
from zero_sizer.witnesses.cut import cut_job
from zero_sizer.witnesses.simulated import run_requests
from zero_sizer.witnesses.simulated.parent import request_of

LIMITS = Path(__file__).parents[1] / "docs" / "limits.md"
START, END = "<!-- parity:start -->", "<!-- parity:end -->"
BATCH = 12  # jobs a child process runs in its forks

NOT_SIMULATED = {"cublas_workspace"}  # a kernel library's, which fake tensors never call

MODELS = {  # longest sequence that is tried
    "llama-3-8b": 4096,  # dense, grouped queries
    "llama-2-7b": 4096,  # dense
    "qwen3-4b": 2048,  # query and key norms, tied head
    "gemma-2-9b": 2048,  # soft caps, two kinds of layers
    "gpt2": 1024,  # learned positions, dropout
    "gpt-neox-20b": 2048,  # parallel attention
    "mixtral-8x7b": 2048,  # mixture of experts
    "t5-3b": 1024,  # encoder-decoder
    "bert-large": 512,  # encoder
}


class Case(NamedTuple):
    """One job and what it was drawn as."""

    name: str
    job: Job

    def __repr__(self) -> str:
        return self.name


Choose = Callable[[Sequence[Any]], Any]
"""Picks one of several: ``random.choice``, or a property test's drawing."""


def draw(choose: Choose) -> Case:
    """A job out of everything the suite covers."""
    model = choose(list(MODELS))
    stage = choose((0, 1, 2, 3))
    precision = choose(("bf16", "bf16", "bf16", "fp16", "fp32", "autocast"))
    # without ZeRO DeepSpeed accumulates in the weights' dtype only (engine.py:2322)
    accumulated = choose((None, "fp32")) if stage and precision in ("bf16", "fp16") else None
    offload = choose(("none", "none", "optimizer", "both")) if stage else "none"
    if offload == "both" and stage < 3:
        offload = "optimizer"
    ranks = choose((1, 2, 4, 8, 64, 1024))
    workload = {
        "seq_len": choose([s for s in (256, 512, 1024, 2048, 4096) if s <= MODELS[model]]),
        "checkpointing": choose((False, True)),
        "attention": choose(("flash", "eager")) if model != "t5-3b" else "eager",
        "zero_init": stage == 3,
    }
    config = _config(choose, stage, precision, offload)
    if accumulated:
        config["data_types"] = {"grad_accum_dtype": accumulated}
    name = (
        f"{model} stage {stage} {precision} accumulated {accumulated} offload {offload} "
        f"ranks {ranks} batch {config['train_micro_batch_size_per_gpu']} {workload}"
    )
    job = Job(
        document=document.from_mapping(config),
        model=models.load(model),
        cluster=Cluster(nodes=max(ranks // 8, 1), gpus_per_node=min(ranks, 8), origins={}),
        workload=Workload(**workload),
        origins={},
    )
    return Case(name, cut_job(job, choose((6, 8))))


def _config(choose: Choose, stage: int, precision: str, offload: str) -> dict[str, Any]:
    zero: dict[str, Any] = {
        "stage": stage,
        "reduce_bucket_size": choose((10**7, 10**8, 5 * 10**8)),
    }
    if stage == 3:
        zero["stage3_prefetch_bucket_size"] = choose((0, 10**7, 5 * 10**7))
        zero["stage3_max_reuse_distance"] = choose((0, 10**9))
        zero["stage3_param_persistence_threshold"] = choose((0, 10**5))
    else:
        zero["overlap_comm"] = choose((False, False, True))
    if offload != "none":
        zero["offload_optimizer"] = {"device": "cpu"}
    if offload == "both":
        zero["offload_param"] = {"device": "cpu"}
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": choose((1, 2, 4)),
        "gradient_accumulation_steps": choose((1, 1, 2)),
        "optimizer": {"type": choose(("AdamW", "AdamW", "Lion")), "params": {"lr": 1e-4}},
        "zero_optimization": zero,
    }
    if precision == "autocast":
        config["torch_autocast"] = {"enabled": True, "dtype": choose(("bfloat16", "float16"))}
    elif precision != "fp32":
        config[precision] = {"enabled": True}
    return config


def plan_of(case: Case) -> Plan:
    """The case's plan at rank 0, the one that is simulated."""
    plan = size(case.job).plan
    if plan is None:
        raise ValueError(f"no plan for {case.name}")
    return replace(plan, rank=0)


def compare(case: Case, recording: Any) -> Iterator[tuple[str, str, int, int]]:
    """(device, phase, predicted, simulated) of every phase of the last optimizer step."""
    rank = recording.ranks[0]
    allocations = evaluate(ENTRIES, plan_of(case), explain=False)
    moments = totals([a for a in allocations if a.name not in NOT_SIMULATED], 1)
    last = max(phase.step for phase in rank.phases)
    boundary = max(phase.micro_step for phase in rank.phases)
    for device in (Device.GPU, Device.HOST):
        predicted = phase_peaks(moments[device])
        for phase in STEPPING:
            simulated = max(
                (
                    record.device[device.value].get("max_allocated", 0)
                    for record in rank.phases
                    if record.name == phase.value
                    and (phase is Phase.INIT or record.step == last)
                    and (phase is not Phase.STEP or record.micro_step == boundary)
                ),
                default=0,
            )
            yield device.value, phase.value, predicted[phase], simulated


Errors = dict[tuple[str, str], list[tuple[float, str]]]
"""(device, phase) -> error and job."""


def run_batch(cases: list[Case]) -> list[Any]:
    """Simulate jobs, one after the other in forks of one process."""
    return run_requests([request_of(case.job, rank=0, steps=2) for case in cases])


def note(cases: list[Case], recordings: list[Any], errors: Errors) -> int:
    """Note the errors of jobs; how many the engine took."""
    done = 0
    for case, recording in zip(cases, recordings, strict=True):
        if isinstance(recording, ZeroSizerError):
            print(f"refused: {case.name}: {recording}", file=sys.stderr)
            continue
        done += 1
        rows = list(compare(case, recording))
        gpu = [
            (predicted, simulated) for device, _, predicted, simulated in rows if device == "gpu"
        ]
        rows.append(("gpu", "whole run", max(p for p, _ in gpu), max(s for _, s in gpu)))
        apart = ", torch_autocast" if "torch_autocast" in case.job.document.values else ""
        for device, phase, predicted, simulated in rows:
            if simulated > 2**20:
                errors[device, phase + apart].append((predicted / simulated - 1, case.name))
    return done


def main() -> int:
    """Run the jobs and print (or write) the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    errors: Errors = defaultdict(list)
    done, drawn, started = 0, 0, time.perf_counter()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while done < arguments.jobs:
            cases = [draw(rng.choice) for _ in range(arguments.jobs - done)]
            drawn += len(cases)
            batches = [cases[i : i + BATCH] for i in range(0, len(cases), BATCH)]
            for batch, recordings in zip(batches, pool.map(run_batch, batches), strict=True):
                done += note(batch, recordings, errors)
                passed = time.perf_counter() - started
                print(f"{done} jobs, {passed:.0f} s", file=sys.stderr, flush=True)
    table = render(errors, done, drawn - done, arguments.seed)
    print(table)
    for key, found in errors.items():
        for error, name in sorted(found, key=lambda e: -abs(e[0]))[:3]:
            print(f"{key}: {error:+.2%} {name}", file=sys.stderr)
    if arguments.write:
        text = LIMITS.read_text(encoding="utf-8")
        before, after = text.index(START) + len(START), text.index(END)
        LIMITS.write_text(f"{text[:before]}\n{table}\n{text[after:]}", encoding="utf-8")
    return 0


def render(errors: Errors, done: int, refused: int, seed: int) -> str:
    """The Markdown table."""
    lines = [
        f"{done} jobs (seed {seed}; {refused} that the engine or the model refuses were drawn "
        "again), rank 0, full-width models cut to 6 or 8 blocks.",
        "",
        "| device | phase | jobs | median error | 95th percentile | worst |",
        "|---|---|---|---|---|---|",
    ]
    for (device, phase), found in sorted(errors.items()):
        sizes = sorted(abs(error) for error, _ in found)
        worst = max(found, key=lambda e: abs(e[0]))[0]
        cut = sizes[min(int(0.95 * len(sizes)), len(sizes) - 1)]
        lines.append(
            f"| {device} | {phase} | {len(sizes)} | {statistics.median(sizes):.2%} | {cut:.2%} "
            f"| {worst:+.2%} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
