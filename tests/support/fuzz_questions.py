"""Cases for commands about files that are no job: lint, schema, diagnose, calibrate, profiles."""

import copy
import json
from random import Random
from typing import Any

from support.fuzz_samples import LLAMA, RECORDING, SAMPLE
from support.fuzz_values import NUMBERS, TEXTS, Case, as_json, config_text, damaged, mutated

from zero_sizer.schemas import answers

_FIGURES = {
    "gpu": {
        "allocated": 10**9,
        "max_allocated": 2 * 10**9,
        "reserved": 3 * 10**9,
        "max_reserved": 3 * 10**9,
        "used": 4 * 10**9,
    },
    "host": {"resident": 10**9, "max_resident": 2 * 10**9},
}
TRAINED: Any = {
    **RECORDING,
    "how": "trained",
    "world_size": 8,
    "job": {
        "hf_config": LLAMA,
        "config": SAMPLE,
        "name": "m",
        "gpu": "a100-80gb",
        "gpu_name": "NVIDIA A100-SXM4-80GB",
        "gpu_bytes": 84 * 10**9,
        "local_world_size": 8,
        "seq_len": 128,
        "attention": "flash",
        "checkpointing": True,
        "checkpointing_how": {"every": 1, "first": None, "offload": False, "by": "reentrant"},
        "lora": {"r": 8, "target_modules": ["q_proj"]},
        "freeze": ["*.embed_tokens.*"],
        "optimizer": "adamw_torch",
    },
    "rooms": [],
    "prediction": {"gpu": {"low": 1, "expected": 2, "high": 3}},
    "ranks": [
        {
            "rank": 0,
            "phases": [
                {**phase, "step": step, "device": _FIGURES}
                for step in (0, 1)
                for phase in RECORDING["phases"]
            ],
            "steps": [{"step": step, "seconds": 0.5, "tokens": 128} for step in range(6)],
            "skipped_steps": 0,
            "notes": [],
        }
    ],
}
_BYTES = {"low": 10**8, "expected": 2 * 10**8, "high": 3 * 10**8, "ranks": 8}
PROFILE: Any = {
    "schema_version": 1,
    "gpu": "h100-80gb",
    "outside": {"one_gpu": _BYTES, "one_node": _BYTES, "several_nodes": _BYTES},
    "reserve": {"median": 0.1, "most": 0.2, "ranks": 8},
    "process": _BYTES,
    "rates": {"matmul_tflops": {"value": 400.0, "low": 300.0, "high": 500.0, "runs": 2}},
    "recordings": ["memory.json"],
    "ranks": 8,
    "notes": [],
}
_LOG = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 3 has a total "
    "capacity of 79.10 GiB of which 1.25 GiB is free. Process 1234 has 77.8 GiB memory in use. Of "
    "the allocated memory 70.1 GiB is allocated by PyTorch, and 5.2 GiB is reserved by PyTorch but "
    "unallocated.",
    '  File "/x/deepspeed/runtime/zero/stage3.py", line 1234, in backward',
    "slurmstepd: error: Detected 1 oom_kill event in StepId=1.0. Some of the step tasks have been "
    "OOM Killed.",
    "[42.1] Out of memory: Killed process 77 (python) total-vm:1kB, anon-rss:2kB",
    "exits with return code = -9",
)


def _format(random: Random) -> list[str]:
    return random.choice(([], ["--format=json"]))


def calibrate(random: Random) -> Case:
    files = {"r.json": as_json(random, mutated(random, copy.deepcopy(TRAINED)))}
    return Case("calibrate", ("calibrate", "@/r.json", *_format(random)), files)


def crosscheck_alone(random: Random) -> Case:
    files = {"r.json": as_json(random, mutated(random, copy.deepcopy(TRAINED)))}
    argv = ("crosscheck", "--recording", "@/r.json", *_format(random))
    return Case("crosscheck: trained", argv, files)


def check_profile(random: Random) -> Case:
    files = {
        "p.json": as_json(random, mutated(random, copy.deepcopy(PROFILE))),
        "ds.json": json.dumps(SAMPLE).encode(),
    }
    argv = ["check", "@/ds.json", "--model", "gpt2", "--gpus-per-node", "8", *_format(random)]
    return Case("check: cluster profile", (*argv, "--cluster-profile", "@/p.json"), files)


def lint(random: Random) -> Case:
    named = random.choice(("text", "json", "github", "sarif"))
    files = {"a.json": config_text(random), "b.json": config_text(random)}
    return Case("lint", ("lint", "@/a.json", "@/b.json", f"--format={named}"), files)


def schema(random: Random) -> Case:
    odd = str(random.choice((*answers(), *TEXTS, *NUMBERS)))[:300].replace("\0", "0")
    argv = random.choice(([], ["--strict"], [f"--answer={odd}"], [f"--answer={odd}", "--strict"]))
    return Case("schema", ("schema", *argv))


def diagnose(random: Random) -> Case:
    lines = [random.choice((*_LOG, *TEXTS)) for _ in range(random.randint(0, 8))]
    log = damaged(random, "\n".join(map(str, lines)).encode("utf-8", "surrogatepass"))
    files = {"train.log": log, "ds.json": config_text(random)}
    about = random.choice(([], ["@/ds.json", "--model", "gpt2", "--gpu", "h100-80gb"]))
    return Case("diagnose", ("diagnose", "@/train.log", *about, *_format(random)), files)
