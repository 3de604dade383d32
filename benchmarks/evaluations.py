"""How many full evaluations a second: from a candidate's numbers to the peak of every device.

Two ways, each with candidates that were never seen before: the search's sweep over strategies,
nodes, micro batches, checkpointing and buffers; and whole plans one by one, ledger and all.

python benchmarks/evaluations.py            # prints the table
python benchmarks/evaluations.py --write    # and puts it into benchmarks/results.md
"""

import argparse
import random
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median

from cold_start import machine, replace_section

from zero_sizer.advise.choose import Options, search_of
from zero_sizer.advise.config import default_config
from zero_sizer.advise.ladder import Tuning, ladder_of
from zero_sizer.advise.search import Search
from zero_sizer.advise.strategy import Strategy
from zero_sizer.job import read
from zero_sizer.job.fields import Flags
from zero_sizer.ledger import entries
from zero_sizer.ledger.entry import evaluate
from zero_sizer.ledger.peak import peak_of, totals

ROOT = Path(__file__).parent.parent

LIMIT = 2000
MODELS = ("gpt2", "llama-3-8b", "mixtral-8x7b", "llama-3-70b", "gemma-3-4b", "deepseek-v3")
ROUNDS, COUNT, BATCHES = 5, 400, 8
_NODES = range(1, 65)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="update benchmarks/results.md")
    options = parser.parse_args()
    section, slowest = render()
    print(section)
    if options.write:
        replace_section(section)
    return int(slowest < LIMIT)


def search(model: str) -> Search:
    flags = Flags(
        model=model,
        gpus_per_node=8,
        gpu="h100-80gb",
        host_memory="2TiB",
        nvme="30TB",
        seq_len=1024,  # what all of them take
        attention="flash",
    )
    return search_of(read.without_config(default_config(), flags), Options())


def rungs(strategy: Strategy) -> list[Tuning]:
    """Buckets and windows; pinning and sub-groups change no more than an entry or two."""
    ladder = ladder_of(strategy)
    return [ladder.both(ladder.host[0], rung) for group in ladder.gpu for rung in group]


def candidates(found: Search, seed: int) -> Iterator[tuple[str, dict[str, int]]]:
    """Distinct candidates, ``BATCHES`` micro batches at a time of strategies drawn at random."""
    draw, met = random.Random(seed), set()
    while True:
        strategy = draw.choice(found.strategies)
        numbers = {
            "dp_world_size": 8 * draw.choice(_NODES),
            "checkpointing": draw.random() < 0.5,
            **draw.choice(rungs(strategy)).values,
        }
        for batch in draw.sample(range(1, 129), BATCHES):
            candidate = {**numbers, "micro_batch": batch, "grad_accum": draw.randint(1, 16)}
            key = (strategy.name, *candidate.values())
            if key not in met:
                met.add(key)
                yield strategy.name, candidate


def rates(seeds: Iterator[tuple[str, dict[str, int]]], one: Callable[..., object]) -> list[float]:
    """Evaluations a second of each round, after as many to warm up."""
    for _, candidate in zip(range(COUNT * ROUNDS), seeds, strict=False):
        one(*candidate)
    found = []
    for _ in range(ROUNDS):
        chosen = [next(seeds) for _ in range(COUNT)]
        start = time.process_time()
        for candidate in chosen:
            one(*candidate)
        found.append(COUNT / (time.process_time() - start))
    return found


def sweeping(model: str) -> list[float]:
    found = search(model)
    sweep = found.sweep
    if sweep is None:
        raise SystemExit("no strategy can be planned")
    return rates(candidates(found, 1), lambda name, n: sweep.uses(sweep.values(name, **n)))


def one_by_one(model: str) -> list[float]:
    """One stage-3 plan with other batches and sequences, each evaluated from nothing."""
    found = search(model)
    plan = found.sweep.plan(found.sweep.values("ZeRO-3", dp_world_size=16))

    def one(name: str, numbers: dict[str, int]) -> object:
        batch, length = numbers["micro_batch"], 128 * numbers["grad_accum"]
        other = replace(plan, micro_batch=batch, seq_len=length)
        moments = totals(evaluate(entries.ENTRIES, other, explain=False), plan.ranks_per_node)
        return {device: peak_of(per_moment) for device, per_moment in moments.items()}

    return rates(candidates(found, 2), one)


def render() -> tuple[str, float]:
    rows, slowest = [], float("inf")
    for model in MODELS:
        swept, single = sweeping(model), one_by_one(model)
        slowest = min(slowest, median(swept))
        cells = [model, *(f"{f(swept):,.0f}" for f in (min, median)), f"{median(single):,.0f}"]
        rows.append(f"| {' | '.join(cells)} |")
    text = "\n".join(
        [
            "## Evaluations",
            "",
            "Full evaluations (plan, ledger, timeline, peak of every device) a second of the "
            f"processor, {ROUNDS} rounds of {COUNT} candidates that were not seen before, in one "
            "warm process, by `benchmarks/evaluations.py`. A sweep: strategy, 1 to "
            f"{len(_NODES)} nodes, checkpointing and buffers at random, for each {BATCHES} of 128 "
            "micro batches and accumulations. Whole plans: ZeRO-3 on 16 GPUs, 128 micro batches "
            "and 16 sequence lengths, each plan made and evaluated from nothing.",
            "",
            "| model | sweep, slowest round | sweep, median | whole plans, median |",
            "|---|---|---|---|",
            *rows,
            "",
            f"The limit is {LIMIT:,} for the median of a sweep. {machine()}",
            "",
        ]
    )
    return text, slowest


if __name__ == "__main__":
    sys.exit(main())
