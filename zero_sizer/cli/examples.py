"""Examples at the end of every command's help: lines to copy, the usual one first."""

from collections.abc import Mapping

_ON = "--gpu h100-80gb --gpus-per-node 8"

EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "": (
        f"zero-sizer check ds.json --model llama-3-8b {_ON} --seq-len 4096",
        f"zero-sizer choose --model llama-3-8b {_ON} --emit ds.json",
        "zero-sizer size --model llama-3-70b --gpu a100-80gb --gpus-per-node 8",
    ),
    "check": (
        f"zero-sizer check ds.json --model llama-3-8b {_ON} --seq-len 4096 --checkpointing",
        "zero-sizer check ds.json --model path/to/config.json --gpu-memory 24GiB --timeline",
        "zero-sizer check job.yaml --micro-batch 2 --format json",
        "zero-sizer check job.yaml --format html --output report.html",
    ),
    "choose": (
        f"zero-sizer choose --model llama-3-8b {_ON} --host-memory 1TiB --emit ds.json",
        f"zero-sizer choose ds.json --model llama-3-8b {_ON} --largest micro-batch",
        f"zero-sizer choose job.yaml {_ON} --tokens 300B --target-days 14 --emit-launch torchrun",
    ),
    "size": (
        "zero-sizer size --model llama-3-70b --gpu a100-80gb --gpus-per-node 8 --seq-len 8192",
        "zero-sizer size ds.json --model llama-3-8b --gpu l40s --gpus-per-node 4 --fewest nodes",
        "zero-sizer size job.yaml --format markdown --output sizes.md",
    ),
    "diagnose": (
        "zero-sizer diagnose slurm-123.out",
        f"zero-sizer diagnose train.log ds.json --model llama-3-8b {_ON} --seq-len 4096",
    ),
    "lint": (
        "zero-sizer lint ds_zero2.json ds_zero3.json",
        "zero-sizer lint --format sarif conf/ds.json",
        "cat ds.json | zero-sizer lint -",
    ),
    "guard": (
        "zero-sizer guard --gpu h100-80gb --seq-len 4096 -- "
        "torchrun --nproc-per-node 8 train.py --deepspeed ds.json --model_name_or_path llama/",
        "zero-sizer guard job.yaml -- srun --nodes 4 --ntasks-per-node 8 python train.py",
        "zero-sizer guard --gpu a100-80gb --dry-run simulated -- deepspeed --num_gpus 8 train.py",
    ),
    "dryrun": (
        f"zero-sizer dryrun ds.json --how simulated --model llama-3-8b {_ON} --rank worst",
        f"zero-sizer dryrun --how simulated {_ON} -- torchrun --nproc-per-node 8 train.py",
        "zero-sizer dryrun ds.json --how launched --ranks 2 --model gpt2 --output run.json",
    ),
    "crosscheck": (
        f"zero-sizer crosscheck ds.json --model llama-3-8b {_ON} --with helpers --with simulated",
        "zero-sizer crosscheck ds.json --model gpt2 --recording run.json",
        "zero-sizer crosscheck --recording out/memory.json",
    ),
    "calibrate": (
        "zero-sizer calibrate out/memory.rank*.json --output cluster.json",
        "zero-sizer calibrate one-gpu.json one-node.json --format json",
    ),
    "schema": (
        "zero-sizer schema --output deepspeed.schema.json",
        "zero-sizer schema --strict",
        "zero-sizer schema --answer check",
    ),
    "page": (
        "zero-sizer page --output site --fetch",
        "zero-sizer page --output site --pyodide node_modules/pyodide",
    ),
    "completion": (
        "zero-sizer completion bash",
        "zero-sizer completion zsh",
    ),
    "models": ("zero-sizer models", "zero-sizer models --profile path/to/config.json"),
    "gpus": ("zero-sizer gpus", "zero-sizer gpus --model llama-3-8b --seq-len 4096"),
}
"""Command -> its lines; of none, those of all."""
