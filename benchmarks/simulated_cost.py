"""What a simulated dry run costs: two jobs of the design's targets, timed through the command line.

    python benchmarks/simulated_cost.py            # prints the table
    python benchmarks/simulated_cost.py --write    # and puts it into benchmarks/results.md

Each run is a new `zero-sizer dryrun`, imports included: wall-clock seconds, processor seconds and
the largest resident set of its processes. Nothing is extrapolated: every block of the model is run.
On a busy machine the processor seconds are the figure to look at.
"""

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results.md"
GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Target:
    model: str
    ranks: int
    seq_len: int
    limit_seconds: float
    limit_gib: float | None = None


TARGETS = (
    Target(model="llama-2-7b", ranks=64, seq_len=4096, limit_seconds=20, limit_gib=1),
    Target(model="llama-3-70b", ranks=1024, seq_len=4096, limit_seconds=60),
)


@dataclass(frozen=True, kw_only=True)
class Cost:
    wall: float
    processor: float
    resident: int
    peak: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="update benchmarks/results.md")
    options = parser.parse_args()
    costs = [(target, measure(target)) for target in TARGETS]
    section = render(costs)
    print(section)
    if options.write:
        replace_section(section)
    return int(any(exceeds(target, cost) for target, cost in costs))


def measure(target: Target) -> Cost:
    """One run of ZeRO-3, bf16, AdamW, checkpointing, micro batch 1, two optimizer steps."""
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "bf16": {"enabled": True},
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-4}},
        "zero_optimization": {"stage": 3},
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "ds.json")
        path.write_text(json.dumps(config))
        options = {
            "how": "simulated",
            "model": target.model,
            "nodes": target.ranks // 8,
            "gpus-per-node": 8,
            "seq-len": target.seq_len,
            "output": Path(folder, "recording.json"),
        }
        flags = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        command = [sys.executable, "-m", "zero_sizer", "dryrun", str(path), "--checkpointing"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        started = time.perf_counter()
        with subprocess.Popen(
            [*command, *flags],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
        ) as child:
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - started
        answer: dict[str, Any] = json.loads(Path(folder, "recording.json").read_text())
    return _cost(answer, wall, usage)


def _cost(answer: dict[str, Any], wall: float, usage: resource.struct_rusage) -> Cost:
    return Cost(
        wall=wall,
        processor=usage.ru_utime + usage.ru_stime,
        resident=usage.ru_maxrss * 1024,
        peak=answer["peak"]["gpu"],
    )


def exceeds(target: Target, cost: Cost) -> bool:
    too_large = target.limit_gib is not None and cost.resident > target.limit_gib * GIB
    return cost.wall > target.limit_seconds or too_large


def render(costs: list[tuple[Target, Cost]]) -> str:
    lines = [
        "## Simulated dry run",
        "",
        "ZeRO-3, bf16, AdamW, checkpointing, micro batch 1, sequence 4096; two optimizer steps;",
        f"Python {sys.version.split()[0]}, {os.cpu_count()} processors, load "
        f"{os.getloadavg()[0]:.1f}. Imports included, every block run.",
        "",
        "| model | ranks | wall s (target) | processor s | resident GiB (target) | GPU peak GiB |",
        "|---|---|---|---|---|---|",
    ]
    for target, cost in costs:
        memory = f" ({target.limit_gib:g})" if target.limit_gib is not None else ""
        lines.append(
            f"| {target.model} | {target.ranks} | {cost.wall:.1f} ({target.limit_seconds:g}) | "
            f"{cost.processor:.1f} | {cost.resident / GIB:.2f}{memory} | {cost.peak / GIB:.2f} |"
        )
    return "\n".join(lines) + "\n"


def replace_section(section: str) -> None:
    text = RESULTS.read_text() if RESULTS.exists() else "# Benchmarks\n\n"
    pattern = re.compile(r"## Simulated dry run\n.*?(?=\n## |\Z)", re.DOTALL)
    if pattern.search(text):
        text = pattern.sub(lambda _: section, text)
    else:
        text = f"{text.rstrip()}\n\n{section}"
    RESULTS.write_text(text)


if __name__ == "__main__":
    sys.exit(main())
