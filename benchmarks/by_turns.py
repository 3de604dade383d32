"""This checkout beside earlier ones, run by turns: a cold `check`, and sweeps of plans.

    python benchmarks/by_turns.py --against ../at-f33c18d ../at-4c8a454
    python benchmarks/by_turns.py --against ../at-f33c18d --write
    python benchmarks/by_turns.py --against ../at-f33c18d --every --write   # choose, each model

A machine that others use is slow for all of them in the same round, so ratios are what counts.
Each sweep is a process of its own and evaluates the same candidates in the same order: the twelve
strategies that all checkouts know, 1 to 64 nodes of 8 GPUs, checkpointed or not, buckets and
windows drawn at random, for each 8 of 128 micro batches and accumulations.

A sweep follows every plan; a search follows few, and decides the others by bounds. So ``--every``
times what a user waits for: one `choose` of each bundled model.
"""

import argparse
import gc
import importlib
import math
import os
import random
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from cold_start import ROOT, demo_check, machine, one_run, replace_section

MODELS = ("gpt2", "llama-3-8b", "mixtral-8x7b", "llama-3-70b")
COUNT, BATCHES = 2000, 8
JOBS = tuple((a, n) for a in ("flash", "sdpa", "eager") for n in (1024, 4096, 448))
"""Attention and tokens: of each model the first that it takes."""
WANTED = 10_000  # plans decided a second
NODES = 8
STRATEGIES = (
    "no ZeRO",
    "ZeRO-1",
    "ZeRO-2",
    "ZeRO-3",
    "ZeRO-3, hpZ",
    "ZeRO-1, optimizer on host",
    "ZeRO-2, optimizer on host",
    "ZeRO-3, optimizer on host",
    "ZeRO-3, all on host",
    "ZeRO-3, optimizer on NVMe",
    "ZeRO-3, optimizer on NVMe, weights on host",
    "ZeRO-3, all on NVMe",
)
BUCKETS: tuple[dict[str, int], ...] = (
    {},
    {"reduce_bucket_size": 100_000_000},
    {"reduce_bucket_size": 20_000_000},
)
WINDOWS: tuple[dict[str, int], ...] = (
    {},
    {"prefetch_bucket_size": 0},
    {"prefetch_bucket_size": 0, "max_live_parameters": 100_000_000, "max_reuse_distance": 0},
)


def candidates(seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Candidates, ``BATCHES`` micro batches at a time."""
    draw = random.Random(seed)
    while True:
        strategy = draw.choice(STRATEGIES)
        numbers: dict[str, Any] = {
            "dp_world_size": 8 * draw.randint(1, 64),
            "checkpointing": draw.random() < 0.5,
            **(draw.choice(BUCKETS) if "ZeRO-" in strategy else {}),
            **(draw.choice(WINDOWS) if "ZeRO-3" in strategy else {}),
        }
        for batch in draw.sample(range(1, 129), BATCHES):
            yield (
                strategy,
                {**numbers, "micro_batch": batch, "grad_accum": draw.randint(1, 16)},
            )


def bundled() -> tuple[str, ...]:
    """Names of the bundled models."""
    from zero_sizer.models.sources.bundled import bundled_names

    return bundled_names()


def sweep_of(model: str) -> Any:
    """The sweep of a model, in whatever checkout is imported; None: nothing of it can be swept."""
    return next((found for job in JOBS if (found := _sweep_at(model, *job)) is not None), None)


def _sweep_at(model: str, attention: str, seq_len: int) -> Any:
    from zero_sizer.advise.choose import Options, search_of

    return search_of(_job_at(model, attention, seq_len), Options()).sweep


def _job_at(model: str, attention: str, seq_len: int | None, nodes: int = 1) -> Any:
    from zero_sizer.advise.config import default_config

    try:
        read = importlib.import_module("zero_sizer.job.read")
        flags = importlib.import_module("zero_sizer.job.fields").Flags
    except ImportError:
        read = importlib.import_module("zero_sizer.job")
        flags = read.Flags
    stated = flags(
        model=model,
        nodes=nodes,
        gpus_per_node=8,
        gpu="h100-80gb",
        host_memory="2TiB",
        nvme="30TB",
        seq_len=seq_len,
        attention=attention,
    )
    return read.without_config(default_config(), stated)


def choosing(model: str) -> tuple[float, int]:
    """Seconds of the processor of one `choose` beyond imports, and plans that it decided.

    Not a number of a model that the checkout does not bundle.
    """
    from zero_sizer.advise.choose import Options, choose, search_of

    if model not in bundled():
        return math.nan, 0
    gc.disable()  # as the command line does
    jobs = [*JOBS, *((attention, None) for attention in ("flash", "sdpa", "eager"))]
    for attention, seq_len in jobs:
        job = _job_at(model, attention, seq_len, NODES)
        search = search_of(job, Options())
        if search.sweep is not None and search.knows_activations:
            break
    start = time.process_time()
    found = choose(_job_at(model, attention, seq_len, NODES))
    return time.process_time() - start, found.considered


def sweep(model: str, count: int) -> float:
    """Evaluations a second of the processor, after as many to warm up."""
    found, drawn = sweep_of(model), candidates(1)
    gc.disable()  # as the command line does
    for _, (name, numbers) in zip(range(count), drawn, strict=False):
        found.uses(found.values(name, **numbers))
    chosen = [next(drawn) for _ in range(count)]
    start = time.process_time()
    for name, numbers in chosen:
        found.uses(found.values(name, **numbers))
    return count / (time.process_time() - start)


def in_tree(tree: Path, *options: str) -> list[float]:
    """What this file prints in another process, with the package of ``tree``."""
    line = [sys.executable, __file__, *options]
    path = {**os.environ, "PYTHONPATH": str(tree.resolve())}
    done = subprocess.run(line, env=path, capture_output=True, text=True, check=True)
    return [float(word) for word in done.stdout.split()]


def cold(tree: Path) -> float:
    """Seconds of the processor of one cold `check`."""
    return one_run(demo_check(), tree)[1]


def name_of(tree: Path) -> str:
    """The commit of a checkout."""
    if tree == ROOT:
        return "now"
    line = ["git", "-C", str(tree), "rev-parse", "--short", "HEAD"]
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", type=Path, nargs="+", default=[])
    parser.add_argument("--rounds", type=int, default=3, help="of the sweeps")
    parser.add_argument("--count", type=int, default=COUNT, help="candidates, and to warm up")
    parser.add_argument("--starts", type=int, default=15, help="of a cold check")
    parser.add_argument("--write", action="store_true", help="update benchmarks/results.md")
    parser.add_argument(
        "--every", action="store_true", help="`choose` of each bundled model instead"
    )
    parser.add_argument("--sweep", help="of this model, in this process, and no more")
    parser.add_argument("--choose", help="for this model, in this process, and no more")
    options = parser.parse_args()
    if options.choose:
        print(*choosing(options.choose))
        return 0
    if options.sweep:
        print(sweep(options.sweep, options.count))
        return 0
    render_of = every_model if options.every else render
    section = render_of([*options.against, ROOT], options)
    print(section)
    if options.write:
        replace_section(section)
    return 0


def render(trees: list[Path], options: argparse.Namespace) -> str:
    for tree in trees:  # fills the caches
        cold(tree)
    starts = [[cold(tree) for tree in trees] for _ in range(options.starts)]
    rows = [_row("cold `check`, ms", [[1000 * s for s in row] for row in starts], is_cost=True)]
    for model in MODELS:
        rounds = [
            [in_tree(tree, "--sweep", model, "--count", str(options.count))[0] for tree in trees]
            for _ in range(options.rounds)
        ]
        rows.append(_row(f"sweep of {model}, plans a second", rounds))
    names = [name_of(tree) for tree in trees]
    ratios = [f"against {name}" for name in names[:-1]]
    return "\n".join(
        [
            "## Beside earlier commits",
            "",
            f"By turns, {options.starts} rounds of `{shlex.join(demo_check()[2:])}` and "
            f"{options.rounds} of each sweep ({options.count} candidates after as many to warm up, "
            "the same in all), by `benchmarks/by_turns.py`. Medians of the processor's time; the "
            "last columns are the medians of a round's ratios, above 1 where this is faster.",
            "",
            f"| what | {' | '.join([*names, *ratios])} |",
            f"|---|{'---|' * (2 * len(names) - 1)}",
            *rows,
            "",
            machine(),
            "",
        ]
    )


def every_model(trees: list[Path], options: argparse.Namespace) -> str:
    """The section with one `choose` of each bundled model."""
    rows, rates = [], {}
    for model in bundled():
        rounds = [
            [in_tree(tree, "--choose", model) for tree in trees] for _ in range(options.rounds)
        ]
        seconds = [median(of) for of in zip(*[[s for s, _ in row] for row in rounds], strict=True)]
        ratios = [median(row[i][0] / row[-1][0] for row in rounds) for i in range(len(trees) - 1)]
        decided = int(rounds[-1][-1][1])
        rates[model] = decided / seconds[-1]
        figures = ["new" if math.isnan(x) else f"{x:.2f}" for x in (*seconds, *ratios)]
        cells = [f"{decided:,}", *figures]
        rows.append(f"| {' | '.join([model, *cells, f'{rates[model]:,.0f}'])} |")
        print(rows[-1], file=sys.stderr, flush=True)
    names = [name_of(tree) for tree in trees]
    slowest = min(rates, key=rates.__getitem__)
    enough = sum(rate >= WANTED for rate in rates.values())
    return "\n".join(
        [
            "## Choosing for every bundled model",
            "",
            f"`choose` on {NODES} nodes of 8 h100-80gb, 2 TiB and 30 TB of NVMe, any batch, "
            f"{options.rounds} by turns, by `benchmarks/by_turns.py --every`: seconds of the "
            "processor beyond imports, medians, and the median of a round's ratios, above 1 where "
            "this is faster. Decided are the plans that `choose` counts itself: every micro batch "
            "with every setting, most of them by bounds, not one by one (the section Evaluations "
            f"has those). {enough} of {len(rates)} models reach {WANTED:,} a second; the fewest: "
            f"{slowest}, {rates[slowest]:,.0f}.",
            "",
            f"| model | decided | {' | '.join(f'{name}, s' for name in names)} | "
            f"{' | '.join(f'against {name}' for name in names[:-1])} | decided a second |",
            f"|---|---|---|{'---|' * (2 * len(names) - 1)}",
            *rows,
            "",
            machine(),
            "",
        ]
    )


def _row(what: str, rounds: list[list[float]], *, is_cost: bool = False) -> str:
    columns = list(zip(*rounds, strict=True))
    ratios = [
        median((a / b if is_cost else b / a) for a, b in zip(before, columns[-1], strict=True))
        for before in columns[:-1]
    ]
    cells = [f"{median(column):,.0f}" for column in columns]
    return f"| {' | '.join([what, *cells, *(f'{ratio:.2f}' for ratio in ratios)])} |"


if __name__ == "__main__":
    sys.exit(main())
