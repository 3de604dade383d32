"""Answers of a sweep beside another checkout's: they must be equal to the byte.

    python benchmarks/equal_to.py --against ../at-f33c18d
    python benchmarks/equal_to.py --against ../at-f33c18d --models gpt2 flux.1-dev --count 400

Of every bundled model both evaluate the same candidates (``by_turns.candidates``, another seed for
each model): the peak of every device, when it is, and all that is printed beside it. ``--check``
also compares the whole JSON answer of ``check`` on a few jobs of each model.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

from by_turns import bundled, candidates, sweep_of
from cold_start import ROOT

STAGES = (0, 1, 2, 3)


def answers(model: str, count: int) -> Iterator[str]:
    """The candidates of a model with what they need, a line each."""
    found = sweep_of(model)
    if found is None:
        return
    for name, numbers in islice(candidates(sum(model.encode())), count):
        uses = found.uses(found.values(name, **numbers))
        rows = [f"{device.name} {use}" for device, use in uses.items()]
        yield f"{name} {numbers}: {', '.join(sorted(rows))}"


def checked(model: str) -> Iterator[str]:
    """The whole answers of ``check``: each stage, checkpointed or not."""
    import zero_sizer

    for stage in STAGES:
        for checkpointing in (False, True):
            config = {"zero_optimization": {"stage": stage}, "bf16": {"enabled": True}}
            stated: dict[str, Any] = {"gpus_per_node": 8, "gpu": "h100-80gb", "seq_len": 512}
            try:
                found = zero_sizer.check(
                    {**config, "train_micro_batch_size_per_gpu": 3},
                    model=model,
                    checkpointing=checkpointing,
                    **stated,
                ).to_dict()
            except zero_sizer.InputError as error:
                found = {"error": str(error)}
            yield f"check, stage {stage}, {checkpointing=}: {json.dumps(found, sort_keys=True)}"


def in_tree(tree: Path, models: Sequence[str], options: argparse.Namespace) -> Iterator[str]:
    """The lines of some models, by the package of ``tree``."""
    line = [sys.executable, __file__, "--answers", "--count", str(options.count)]
    line += ["--check"] if options.check else []
    path = {**os.environ, "PYTHONPATH": str(tree.resolve())}
    found = subprocess.Popen(
        [*line, "--models", *models], env=path, stdout=subprocess.PIPE, text=True
    )
    yield from found.stdout or ()
    if found.wait():
        raise SystemExit(f"{tree} answers {found.returncode}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", type=Path, help="another checkout")
    parser.add_argument("--models", nargs="+", help="instead of every bundled one")
    parser.add_argument("--count", type=int, default=80, help="candidates of each model")
    parser.add_argument("--check", action="store_true", help="and whole answers of `check`")
    parser.add_argument("--answers", action="store_true", help="print them, and no more")
    options = parser.parse_args()
    models = options.models or bundled()
    if options.answers:
        for model in models:
            for line in answers(model, options.count):
                print(f"{model}: {line}")
            for line in checked(model) if options.check else ():
                print(f"{model}: {line}")
        return 0
    if options.against is None:
        parser.error("--against is missing")
    compared = differ = 0
    trees = [in_tree(tree, models, options) for tree in (options.against, ROOT)]
    for before, now in zip(*trees, strict=True):
        compared += 1
        if before != now:
            differ += 1
            alike = takewhile(lambda pair: pair[0] == pair[1], zip(before, now, strict=False))
            at = max(sum(1 for _ in alike) - 60, 0)
            print(f"{now[:80]}:\n  then {before[at:][:200]}\n  now  {now[at:][:200]}")
    print(f"{compared:,} answers of {len(models)} models; {differ:,} differ.")
    return int(differ > 0)


if __name__ == "__main__":
    sys.exit(main())
