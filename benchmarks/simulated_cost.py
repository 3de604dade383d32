"""What a simulated dry run costs beyond its imports: two jobs of the design's targets.

    python benchmarks/simulated_cost.py                               # prints the table
    python benchmarks/simulated_cost.py --against ../at-9afcaf6       # beside an earlier commit
    python benchmarks/simulated_cost.py --against ../at-9afcaf6 --write   # into results.md

Each run is a new process that imports what a run needs, notes the processor's time, and runs the
request that ``zero-sizer dryrun`` would run, every block of the model and two optimizer steps.
Checkouts take turns, since a machine that others use is slow for all of them in the same round: the
ratio is what counts. Whether they find the same bytes in every phase is said beside it.
"""

import argparse
import importlib
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from by_turns import name_of
from cold_start import ROOT, machine, replace_section

GIB = 2**30
CONFIG = {
    "train_micro_batch_size_per_gpu": 1,
    "bf16": {"enabled": True},
    "optimizer": {"type": "AdamW", "params": {"lr": 1e-4}},
    "zero_optimization": {"stage": 3},
}
JOB = {"gpus_per_node": 8, "seq_len": 4096, "checkpointing": True}


@dataclass(frozen=True, kw_only=True)
class Target:
    """A job, and the limits of the design: processor seconds beyond imports, resident GiB."""

    model: str
    ranks: int
    limit_seconds: float
    limit_gib: float


TARGETS = (
    Target(model="llama-2-7b", ranks=64, limit_seconds=4, limit_gib=1),
    Target(model="llama-3-70b", ranks=1024, limit_seconds=8, limit_gib=1),
)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """One run: processor seconds, resident bytes, and what every phase held."""

    imports: float
    beyond: float
    wall: float
    resident: int
    phases: Any

    @property
    def peak(self) -> int:
        """Most bytes of the GPU in any phase."""
        return max(phase["device"]["gpu"]["max_allocated"] for phase in self.phases)


def run_here(model: str, ranks: int) -> dict[str, Any]:
    """One run in this process, with whatever checkout is imported."""
    fields = importlib.import_module("zero_sizer.job.fields")
    read = importlib.import_module("zero_sizer.job.read")
    parent = importlib.import_module("zero_sizer.dryrun.simulated.parent")
    child = importlib.import_module("zero_sizer.dryrun.simulated.child")
    stated = fields.Flags(model=model, nodes=ranks // 8, **JOB)
    request = parent.request_of(read.without_config(CONFIG, stated), rank=0, steps=2)
    child._import_everything(models=True)
    used, started = time.process_time(), time.perf_counter()
    recording = child.record(request, lambda done, name: None)
    return {
        "imports": used,
        "beyond": time.process_time() - used,
        "wall": time.perf_counter() - started,
        "resident": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "phases": recording["phases"],
    }


def in_tree(tree: Path, target: Target) -> Cost:
    """One run in a process of its own, with the package of ``tree``."""
    line = [sys.executable, __file__, "--run", target.model, str(target.ranks)]
    path = {**os.environ, "PYTHONPATH": str(tree.resolve()), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, env=path, capture_output=True, text=True, check=True)
    return Cost(**json.loads(done.stdout.splitlines()[-1]))  # libraries print, too


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", type=Path, nargs="+", default=[], help="other checkouts")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="update benchmarks/results.md")
    parser.add_argument("--run", nargs=2, metavar=("MODEL", "RANKS"), help="here, and no more")
    options = parser.parse_args()
    if options.run:
        print(json.dumps(run_here(options.run[0], int(options.run[1]))))
        return 0
    trees = [*options.against, ROOT]
    rounds = {
        target: [[in_tree(tree, target) for tree in trees] for _ in range(options.rounds)]
        for target in TARGETS
    }
    section = render(trees, rounds)
    print(section)
    if options.write:
        replace_section(section)
    return int(any(exceeds(target, [row[-1] for row in of]) for target, of in rounds.items()))


def exceeds(target: Target, costs: list[Cost]) -> bool:
    too_slow = median(cost.beyond for cost in costs) > target.limit_seconds
    return too_slow or max(cost.resident for cost in costs) > target.limit_gib * GIB


def render(trees: list[Path], rounds: dict[Target, list[list[Cost]]]) -> str:
    names = [name_of(tree) for tree in trees]
    lines = [
        "## Simulated dry run",
        "",
        "ZeRO-3, bf16, AdamW, checkpointing, micro batch 1, sequence 4096; two optimizer steps, "
        "every block run, in a new process each time, by `benchmarks/simulated_cost.py`. "
        f"Processor seconds, medians of {len(next(iter(rounds.values())))} rounds by turns; a "
        "ratio is the median of a round's, above 1 where this is faster. Imports are torch's, "
        "DeepSpeed's and transformers' own.",
        "",
        f"| model | ranks | imports | {' | '.join(f'beyond imports, {name}' for name in names)} | "
        f"limit | {''.join(f'against {name} | ' for name in names[:-1])}"
        "bytes of every phase | resident GiB (limit) | GPU peak GiB |",
        f"|---{'|---' * (6 + 2 * len(names) - 1)}|",
        *(_row(target, of) for target, of in rounds.items()),
        "",
        machine(),
        "",
    ]
    return "\n".join(lines)


def _row(target: Target, rounds: list[list[Cost]]) -> str:
    columns, now = list(zip(*rounds, strict=True)), [row[-1] for row in rounds]
    ratios = [
        median(before.beyond / after.beyond for before, after in zip(column, now, strict=True))
        for column in columns[:-1]
    ]
    every = [_figures(cost) for row in rounds for cost in row]
    resident = max(cost.resident for cost in now) / GIB
    cells = [
        target.model,
        str(target.ranks),
        f"{median(cost.imports for cost in now):.1f}",
        *(f"{median(cost.beyond for cost in column):.2f}" for column in columns),
        f"{target.limit_seconds:g}",
        *(f"{ratio:.2f}" for ratio in ratios),
        "equal" if all(figures == every[0] for figures in every) else "DIFFER",
        f"{resident:.2f} ({target.limit_gib:g})",
        f"{now[0].peak / GIB:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def _figures(cost: Cost) -> list[Any]:
    return [(phase["name"], phase["device"]) for phase in cost.phases]


if __name__ == "__main__":
    sys.exit(main())
