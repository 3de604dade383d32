"""LoRA on whole models at stage 3, with no profile of its own, beside the simulated engine.

    python benchmarks/lora_models.py [--models NAME ...] [--write]

Adapters of rank 16 on every linear layer, 8 ranks, bf16, 1 x 2048 tokens, with activation
checkpointing; the rank whose GPU needs most. `--write` puts the table into benchmarks/results.md.
"""

import argparse

from cold_start import replace_section

from zero_sizer.dryrun.simulated.parent import run
from zero_sizer.hardware.device import Device
from zero_sizer.job.fields import Flags
from zero_sizer.job.read import without_config
from zero_sizer.sizing import size
from zero_sizer.units import GIB

LIMIT = 0.02
MODELS = ("llama-3.2-1b", "qwen2.5-3b", "llama-3-8b", "qwen2.5-14b", "qwen2.5-32b", "qwen2.5-72b")
CONFIG = {
    "bf16": {"enabled": True},
    "optimizer": {"type": "AdamW"},
    "zero_optimization": {"stage": 3},
    "train_micro_batch_size_per_gpu": 1,
}


def measured(name: str) -> tuple[int, int]:
    """Bytes of the GPU's peak: predicted, and simulated."""
    flags = Flags(
        model=name,
        adapter="r=16,targets=all-linear",
        gpus_per_node=8,
        gpu="h100-80gb",
        seq_len=2048,
        checkpointing=True,
        attention="sdpa",
    )
    job = without_config(CONFIG, flags)
    sizing = size(job)
    if sizing.plan is None:
        raise SystemExit(f"{name} cannot be planned")
    return sizing.peaks[Device.GPU].num_bytes, run(job, rank=sizing.plan.rank).first.peak()["gpu"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--write", action="store_true", help="update benchmarks/results.md")
    options = parser.parse_args()
    rows, worst = [], 0.0
    for name in options.models:
        predicted, simulated = measured(name)
        error = predicted / simulated - 1
        worst = max(worst, abs(error))
        row = f"| {name} | {simulated / GIB:.3f} | {predicted / GIB:.3f} | {100 * error:+.2f} % |"
        print(row, flush=True)
        rows.append(row)
    if options.write:
        head = "| model | simulated GiB | predicted GiB | error |\n|---|---|---|---|\n"
        about = __doc__.split("\n\n")[2].partition(" `--write`")[0]
        section = f"## LoRA on whole models\n\n{about}\n\n{head}" + "\n".join(rows) + "\n"
        replace_section(section)
    return int(worst > LIMIT)


if __name__ == "__main__":
    raise SystemExit(main())
