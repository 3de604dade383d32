"""How long choosing takes: one job on every number of nodes from 1 to 64.

python benchmarks/choose.py            # prints the table
python benchmarks/choose.py --write    # and puts it into benchmarks/results.md
"""

import argparse
import sys
import time
from pathlib import Path

from cold_start import machine, replace_section

from zero_sizer.advise.choose import Options, choose, search_of
from zero_sizer.advise.config import default_config
from zero_sizer.advise.sizes import node_counts
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
    options = parser.parse_args()
    section, seconds = render()
    print(section)
    if options.write:
        replace_section(section)
    return int(seconds > LIMIT_SECONDS)


def render() -> tuple[str, float]:
    clock, processor = time.perf_counter(), time.process_time()
    search = search_of(wanted(), Options())
    rows = []
    for nodes in node_counts(NODES):
        start, before = time.process_time(), search.considered
        best = [search.best(strategy, nodes) for strategy in search.strategies]
        count = search.considered - before
        if nodes in SHOWN:
            spent = time.process_time() - start
            rows.append(f"| {nodes} | {len(best)} | {count:,} | {spent:.3f} |")
    clock, processor = time.perf_counter() - clock, time.process_time() - processor
    text = "\n".join(
        [
            "## Choosing",
            "",
            f"{MODEL} on nodes of 8 {GPU}, every number of them from 1 to {NODES}, in one process, "
            "by `benchmarks/choose.py`.",
            "",
            "| nodes | strategies | plans decided | processor seconds |",
            "|---|---|---|---|",
            *rows,
            "",
            f"All {NODES} together {search.considered:,} plans in {processor:.2f} s of the "
            f"processor, {clock:.2f} s by the clock; the limit is {LIMIT_SECONDS:.0f} s. "
            f"`choose` on one cluster of 16 nodes: {_alone(16):.2f} s of the processor. "
            f"{machine()}",
            "",
        ]
    )
    return text, processor


def _alone(nodes: int) -> float:
    start = time.process_time()
    choose(wanted(nodes))
    return time.process_time() - start


if __name__ == "__main__":
    sys.exit(main())
