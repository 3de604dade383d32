"""Answers to hundreds of drawn jobs, to see whether a change of the code changed any of them.

    python benchmarks/golden.py --write     keeps today's answers in tests/data/golden_answers.json
    python benchmarks/golden.py             says which answers differ from those that were kept

Every answer is the JSON of ``check``, ``choose`` or ``size``, as a user gets it. What is kept of it
are its figures and a hash of the rest, so that a difference can be looked at.
"""

import argparse
import contextlib
import hashlib
import io
import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from zero_sizer.cli import main

KEPT = Path(__file__).parents[1] / "tests" / "data" / "golden_answers.json"
NUM_JOBS = {"check": 420, "choose": 50, "size": 50}
MODELS = (
    *("llama-3-8b", "llama-2-7b", "qwen2.5-0.5b", "qwen3-4b", "gemma-2-2b", "mistral-7b", "gpt2"),
    *("gpt-neox-20b", "mixtral-8x7b", "t5-3b", "bert-large", "llama-2-70b", "tinyllama-1.1b"),
    "params=6.7e9,layers=32,hidden=4096,heads=32,ffn=11008,vocab=32000",
)
GPUS = ("a100-80gb", "h100-80gb", "a100-40gb", "rtx-4090", "v100-32gb", "l4")


def draw(number: int, command: str) -> tuple[dict[str, Any], list[str]]:
    """A DeepSpeed config and the command's flags."""
    pick = random.Random(f"{command} {number}")
    config = _config(pick)
    flags = ["--model", pick.choice(MODELS), "--gpu", pick.choice(GPUS)]
    flags += ["--gpus-per-node", str(pick.choice((1, 2, 4, 8)))]
    if command != "size":
        flags += ["--nodes", str(pick.choice((1, 1, 2, 4)))]
    flags += ["--seq-len", str(pick.choice((256, 512, 1024)))]
    flags += [pick.choice(("--checkpointing", "--no-checkpointing"))]
    if pick.random() < 0.7:
        flags += ["--host-memory", pick.choice(("256GiB", "1TiB", "2TiB"))]
    if pick.random() < 0.3 and command == "check":
        flags += [
            "--adapter",
            pick.choice(("r=8,targets=all-linear", "r=16,targets=q_proj+v_proj")),
        ]
    return config, flags


def _config(pick: random.Random) -> dict[str, Any]:
    stage = pick.choice((0, 1, 2, 3))
    zero: dict[str, Any] = {"stage": stage, "reduce_bucket_size": pick.choice((10**7, 5 * 10**8))}
    if stage and pick.random() < 0.4:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": pick.random() < 0.5}
    if stage == 3:
        zero["stage3_prefetch_bucket_size"] = pick.choice((0, 5 * 10**7))
        zero["stage3_param_persistence_threshold"] = pick.choice((0, 10**5))
        if pick.random() < 0.3:
            zero["offload_param"] = {"device": "cpu"}
    elif pick.random() < 0.3:
        zero["overlap_comm"] = True
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": pick.choice((1, 2, 4, 8)),
        "gradient_accumulation_steps": pick.choice((1, 2, 4)),
        "optimizer": {"type": pick.choice(("AdamW", "AdamW", "Lion")), "params": {"lr": 1e-4}},
        "zero_optimization": zero,
    }
    precision = pick.choice(("bf16", "bf16", "fp16", "fp32"))
    if precision != "fp32":
        config[precision] = {"enabled": True}
    return config


def answer(number: int, command: str) -> dict[str, Any]:
    """What the command says of a drawn job: its figures, and a hash of the whole."""
    config, flags = draw(number, command)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "ds.json")
        path.write_text(json.dumps(config))
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = main([command, str(path), *flags, "--format", "json"])
            except SystemExit as stop:
                code = int(stop.code or 0)
        text = out.getvalue().replace(folder, "")
    found: dict[str, Any] = {"exit": code, "hash": hashlib.sha256(text.encode()).hexdigest()[:16]}
    if text and command == "check":
        whole = json.loads(text)
        found["verdict"] = whole["verdict"]
        found["peaks"] = {name: d["peak_bytes"] for name, d in whole["devices"].items()}
        found["phases"] = whole["phases"]["gpu"]
    return found


def answers(share: float = 1.0) -> dict[str, dict[str, Any]]:
    """The answers by the name of their job; ``share`` of them."""
    return {
        f"{command} {number}": answer(number, command)
        for command, count in NUM_JOBS.items()
        for number in range(int(count * share))
    }


def run() -> int:
    """Keep the answers, or compare them with those that were kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--figures", action="store_true", help="leave the hash of the rest out")
    arguments = parser.parse_args()
    found = answers()
    if arguments.write:
        lines = (f"{json.dumps(name)}: {json.dumps(row)}" for name, row in found.items())
        KEPT.write_text("{\n" + ",\n".join(lines) + "\n}\n")
        return 0
    kept = json.loads(KEPT.read_text())
    differing = 0
    for name, row in kept.items():
        keys = [
            k
            for k in row
            if not (arguments.figures and k == "hash") and row[k] != found[name].get(k)
        ]
        if keys:
            differing += 1
            command, number = name.split()
            print(name, {k: (row[k], found[name].get(k)) for k in keys}, draw(int(number), command))
    print(f"{len(kept) - differing} of {len(kept)} answers are equal")
    return int(bool(differing))


if __name__ == "__main__":
    sys.exit(run())
