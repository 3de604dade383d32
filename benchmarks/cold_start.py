"""How long `zero-sizer check` takes from a cold start, beside an empty Python.

    python benchmarks/cold_start.py            # prints the table
    python benchmarks/cold_start.py --write    # and puts it into benchmarks/results.md

A run is a new process, timed from outside; the two commands take turns, so that both see the same
load. Only the file cache is warm. Processor seconds hardly change when something else runs.
"""

import argparse
import os
import platform
import re
import resource
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results.md"
LIMIT_SECONDS = 0.25
EMPTY = (sys.executable, "-c", "pass")
# as users have it: compiled modules are kept, wherever this is run
_ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=21)
    parser.add_argument("--write", action="store_true", help="update benchmarks/results.md")
    options = parser.parse_args()
    check = demo_check()
    measured = measure((EMPTY, check), options.runs)
    section = render(check, measured, options.runs)
    print(section)
    if options.write:
        replace_section(section)
    return int(statistics.median(clock for clock, _ in measured[check]) > LIMIT_SECONDS)


def demo_check() -> tuple[str, ...]:
    """The README's command, through ``python -m`` so that no installed script is needed."""
    last = (ROOT / "scripts" / "demo").read_text().strip().splitlines()[-1]
    return (sys.executable, "-m", *shlex.split(last.replace("zero-sizer", "zero_sizer", 1)))


Run = tuple[float, float]
"""Seconds by the clock, and of the processor."""


def measure(commands: tuple[tuple[str, ...], ...], runs: int) -> dict[tuple[str, ...], list[Run]]:
    """Every run of each command, after one unmeasured run that fills the caches."""
    measured: dict[tuple[str, ...], list[Run]] = {command: [] for command in commands}
    for number in range(runs + 1):
        for command in commands:
            run = one_run(command)
            if number:
                measured[command].append(run)
    return measured


def one_run(command: tuple[str, ...], tree: Path = ROOT) -> Run:
    """One run with the package of a checkout."""
    used, start = processor_seconds(), time.perf_counter()
    path = {**_ENVIRONMENT, "PYTHONPATH": str(tree.resolve())}
    done = subprocess.run(command, cwd=tree, env=path, capture_output=True, check=False)
    run = (time.perf_counter() - start, processor_seconds() - used)
    if done.returncode not in (0, 1) or done.stderr:
        raise SystemExit(f"{shlex.join(command)}\n{done.stderr.decode()}")
    return run


def processor_seconds() -> float:
    """Used so far by all finished child processes."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def render(check: tuple[str, ...], measured: dict[tuple[str, ...], list[Run]], runs: int) -> str:
    clock = {command: [run[0] for run in of] for command, of in measured.items()}
    rows = []
    for name, command in (("`python -c pass`", EMPTY), ("`zero-sizer check`", check)):
        figures = [f(clock[command]) for f in (min, statistics.median, max)]
        figures.append(statistics.median(run[1] for run in measured[command]))
        rows.append(f"| {name} | " + " | ".join(f"{figure:.3f}" for figure in figures) + " |")
    ratio = statistics.median(clock[check]) / statistics.median(clock[EMPTY])
    command = shlex.join(check[2:]).replace("zero_sizer", "zero-sizer", 1)
    return "\n".join(
        [
            "## Cold start",
            "",
            f"`{command}`:",
            f"{runs} runs, each a new process, in seconds, by `benchmarks/cold_start.py`.",
            "",
            "| command | least | median | most | median, processor |",
            "|---|---|---|---|---|",
            *rows,
            "",
            f"Ratio of the medians: {ratio:.1f}. Limit for the median: {LIMIT_SECONDS} s. "
            f"{machine()}",
            "",
        ]
    )


def machine() -> str:
    """Where and under which load something was measured."""
    return (
        f"Python {platform.python_version()} on {os.cpu_count()} cores, {platform.machine()}; load "
        f"average {os.getloadavg()[0]:.1f}, of which 1 is the benchmark's own."
    )


def replace_section(section: str) -> None:
    """Put ``section`` where its heading stands in the results, or at their end."""
    text = RESULTS.read_text() if RESULTS.exists() else "# Measurements\n"
    heading = re.escape(section.splitlines()[0])
    pattern = rf"^{heading}\n.*?(?=^## |\Z)"
    if re.search(pattern, text, re.MULTILINE | re.DOTALL):
        text = re.sub(pattern, lambda _: section + "\n", text, flags=re.MULTILINE | re.DOTALL)
    else:
        text = f"{text.rstrip()}\n\n{section}"
    RESULTS.write_text(text.rstrip() + "\n")


if __name__ == "__main__":
    sys.exit(main())
