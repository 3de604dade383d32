"""How long choosing takes: one job on every number of nodes from 1 to 64.

python benchmarks/choose.py            # prints the table
python benchmarks/choose.py --write    # and puts it into benchmarks/results.md
python benchmarks/choose.py --against ../before    # beside another checkout, run by turns
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from cold_start import machine, replace_section

from zero_sizer.advise.choose import Options, choose, search_of
from zero_sizer.advise.config import default_config
from zero_sizer.advise.search import Search
from zero_sizer.job import read
from zero_sizer.job.fields import Flags
from zero_sizer.job.read import Job

ROOT = Path(__file__).parent.parent

LIMIT_SECONDS = 5.0
MODEL, GPU, NODES = "llama-3-70b", "h100-80gb", 64
SHOWN = (1, 2, 3, 7, 16, 33, 64)


def wanted(nodes: int = 1) -> Job:
    flags = Flags(
        model=MODEL,
        nodes=nodes,
        gpus_per_node=8,
        gpu=GPU,
        host_memory="2TiB",
        nvme="30TB",
        seq_len=4096,
        attention="flash",
    )
    return read.without_config(default_config(), flags)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="update benchmarks/results.md")
    parser.add_argument("--against", type=Path, help="another checkout to take the ratio to")
    parser.add_argument("--rounds", type=int, default=3, help="of each, with --against")
    parser.add_argument("--seconds", action="store_true", help="of all sizes, and no more")
    options = parser.parse_args()
    if options.seconds:
        print(_all_sizes()[0])
        return 0
    section, seconds = render()
    if options.against is not None:
        section += _ratio(options.against, options.rounds)
    print(section)
    if options.write:
        replace_section(section)
    return int(seconds > LIMIT_SECONDS)


def render() -> tuple[str, float]:
    clock = time.perf_counter()
    processor, rows = _all_sizes()
    clock = time.perf_counter() - clock
    text = "\n".join(
        [
            "## Choosing",
            "",
            f"{MODEL} on nodes of 8 {GPU}, every number of them from 1 to {NODES}, in one process, "
            "by `benchmarks/choose.py`: which strategies fit, and the fastest plan.",
            "",
            "| nodes | strategies that fit | processor seconds |",
            "|---|---|---|",
            *rows,
            "",
            f"All {NODES} together in {processor:.2f} s of the processor, {clock:.2f} s by the "
            f"clock; the limit is {LIMIT_SECONDS:.0f} s. "
            f"`choose` on one cluster of 16 nodes: {_alone(16):.2f} s of the processor. "
            f"{machine()}",
            "",
        ]
    )
    return text, processor


def _all_sizes() -> tuple[float, list[str]]:
    """Seconds of the processor, and rows of the table."""
    began, rows = time.process_time(), []
    search = search_of(wanted(), Options())
    start = began
    for nodes, count in _counts(search):
        if nodes in SHOWN:
            rows.append(f"| {nodes} | {count} | {time.process_time() - start:.3f} |")
        start = time.process_time()
    return time.process_time() - began, rows


def _counts(search: Search) -> Iterator[tuple[int, int]]:
    """Strategies that fit on each number of nodes; checkouts before ``sizes`` look one by one."""
    try:
        from zero_sizer.advise.sizes import node_counts, sizes_at
    except ImportError:
        from zero_sizer.advise.fleet import node_counts

        for nodes in node_counts(NODES):
            best = [search.best(strategy, nodes) for strategy in search.strategies]
            yield nodes, sum(plan is not None for plan in best)
        return
    for size in sizes_at(search, node_counts(NODES)):
        yield size.nodes, len(size.by_strategy)


def _ratio(other: Path, rounds: int) -> str:
    """Medians of both checkouts, run by turns: a machine that others use is slow for both."""
    seconds: dict[Path, list[float]] = {other: [], ROOT: []}
    for _ in range(rounds):
        for tree, found in seconds.items():
            line = [sys.executable, __file__, "--seconds"]
            path = {**os.environ, "PYTHONPATH": str(tree.resolve())}
            done = subprocess.run(line, env=path, capture_output=True, text=True, check=True)
            found.append(float(done.stdout))
    before, now = median(seconds[other]), median(seconds[ROOT])
    return (
        f"By turns with the commit before, {rounds} rounds of all sizes: median {before:.2f} s "
        f"then, {now:.2f} s now, ratio {before / now:.2f}.\n"
    )


def _alone(nodes: int) -> float:
    start = time.process_time()
    choose(wanted(nodes))
    return time.process_time() - start


if __name__ == "__main__":
    sys.exit(main())
