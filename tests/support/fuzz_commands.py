"""Cases for every command, through the command line's entry."""

import copy
import json
from random import Random
from typing import Any

from support.fuzz_samples import JOB, LLAMA, MODELS, RECORDING, SAMPLE
from support.fuzz_values import (
    NUMBERS,
    TEXTS,
    Case,
    adapter,
    as_json,
    as_yaml,
    config_text,
    hostfile,
    mutated,
    numbers_model,
    safetensors,
)

CLUSTER = ["--gpus-per-node", "8", "--gpu", "h100-80gb"]


def flags(random: Random) -> list[str]:
    """Options with odd values."""
    names = ("--nodes", "--gpus-per-node", "--gpu", "--gpu-memory", "--host-memory", "--nvme",
             "--seq-len", "--micro-batch", "--grad-accum", "--checkpointing-how", "--quantization",
             "--adapter", "--precision", "--attention", "--loss", "--sequences")  # fmt: skip
    sensible = (
        "1",
        "2",
        "8",
        "2048",
        "80GB",
        "2TiB",
        "nf4",
        "int8",
        "every-2",
        "r=8,targets=c_attn",
    )
    found = []
    for name in random.sample(names, random.randint(0, 3)):
        pool = sensible if random.random() < 0.5 else NUMBERS + TEXTS
        found.append(f"{name}={str(random.choice(pool))[:3000]}".replace("\0", "0"))
    return found


def _output(random: Random) -> list[str]:
    return random.choice(([], [], ["--format=json"], ["--timeline"]))


def check_config(random: Random) -> Case:
    argv = ["check", "@/ds.json", "--model", "gpt2", *CLUSTER, *_output(random)]
    return Case("check: config", tuple(argv), {"ds.json": config_text(random)})


def check_flags(random: Random) -> Case:
    argv = ["check", "@/ds.json", "--model", "gpt2", *flags(random), *_output(random)]
    return Case("check: flags", tuple(argv), {"ds.json": json.dumps(SAMPLE).encode()})


_RATES: Any = {"usd_per_gpu_hour": {"h100-80gb": 2.49, "l4": 0.3}, "pue": 1.2}


def money(random: Random) -> list[str]:
    """How much is trained, from when, at which price, with odd values."""
    names = ("--tokens", "--samples", "--epochs", "--start", "--rate", "--rates")
    sensible = {"--start": "2026-01-31", "--rates": "@/rates.yaml", "--tokens": "300B"}
    found = ["--tokens=1T"] if random.random() < 0.5 else []
    for name in random.sample(names, random.randint(0, 3)):
        odd = str(random.choice(NUMBERS + TEXTS))[:3000].replace("\0", "0")
        found.append(f"{name}={sensible.get(name, '2') if random.random() < 0.6 else odd}")
    return found


def check_money(random: Random) -> Case:
    files = {"ds.json": json.dumps(SAMPLE).encode(),
             "rates.yaml": as_yaml(random, mutated(random, copy.deepcopy(_RATES)))}  # fmt: skip
    argv = ["check", "@/ds.json", "--model", "gpt2", *CLUSTER, *money(random), *_output(random)]
    return Case("check: flags", tuple(argv), files)


def check_job(random: Random) -> Case:
    job: Any = copy.deepcopy(JOB)
    for key in ("adapter", "quantization"):
        if random.random() < 0.7:
            del job[key]
    job = mutated(random, job)
    argv = ["check", "@/job.yaml", *_output(random)]
    return Case("check: job file", tuple(argv), {"job.yaml": as_yaml(random, job)})


def check_model(random: Random) -> Case:
    fields = mutated(random, random.choice(MODELS))
    if isinstance(fields, dict) and str(fields.get("model_type")) not in {
        m["model_type"] for m in MODELS
    }:
        fields["model_type"] = "llama"  # others are transformers', which takes its seconds to load
        fields["architectures"] = ["LlamaForCausalLM"]
    files = {"config.json": as_json(random, fields), "ds.json": json.dumps(SAMPLE).encode()}
    argv = ["check", "@/ds.json", "--model", "@/config.json", *CLUSTER, *_output(random)]
    return Case("check: config.json", tuple(argv), files)


def check_adapter(random: Random) -> Case:
    files = {"a.json": as_json(random, adapter(random)), "ds.json": json.dumps(SAMPLE).encode(),
             "config.json": json.dumps(LLAMA).encode()}  # fmt: skip
    argv = ["check", "@/ds.json", "--model", "@/config.json", "--adapter", "@/a.json", *CLUSTER]
    return Case("check: adapter", (*argv, *_output(random)), files)


def check_hostfile(random: Random) -> Case:
    files = {"hosts": hostfile(random), "ds.json": json.dumps(SAMPLE).encode()}
    argv = ["check", "@/ds.json", "--model", "gpt2", "--hostfile", "@/hosts", *_output(random)]
    return Case("check: hostfile", tuple(argv), files)


def check_safetensors(random: Random) -> Case:
    files = {"m.safetensors": safetensors(random), "ds.json": json.dumps(SAMPLE).encode()}
    argv = ["check", "@/ds.json", "--model", "@/m.safetensors", *CLUSTER, *_output(random)]
    return Case("check: safetensors", tuple(argv), files)


def check_numbers(random: Random) -> Case:
    model = numbers_model(random).replace("\0", "0")
    argv = ["check", "@/ds.json", f"--model={model}", *CLUSTER, *_output(random)]
    return Case("check: numbers", tuple(argv), {"ds.json": json.dumps(SAMPLE).encode()})


def crosscheck(random: Random) -> Case:
    files = {"r.json": as_json(random, mutated(random, RECORDING)),
             "ds.json": json.dumps(SAMPLE).encode()}  # fmt: skip
    argv = ["crosscheck", "@/ds.json", "--model", "gpt2", *CLUSTER, "--recording", "@/r.json"]
    return Case("crosscheck: recording", tuple(argv), files)


def choose(random: Random) -> Case:
    config = random.random() < 0.7
    argv = [
        "choose",
        *(["@/ds.json"] if config else []),
        "--model",
        "params=7e6,layers=2,hidden=64",
    ]
    argv += [*CLUSTER, *flags(random)] if random.random() < 0.7 else CLUSTER
    return Case(
        "choose", (*argv, *random.choice(([], ["--format=json"]))), {"ds.json": config_text(random)}
    )


def size(random: Random) -> Case:
    argv = ["size", "@/ds.json", "--model", "params=7e6,layers=2,hidden=64", *CLUSTER]
    argv += [f"--max-nodes={random.choice((1, 2, 4, '0', '-1', 'nan'))}"]
    odd = random.choice(NUMBERS + TEXTS)
    names = ("--tokens", "--margin", "--rate", "--budget", "--target-days", "--start")
    argv += [f"{random.choice(names)}={odd}".replace("\0", "0")] if random.random() < 0.7 else []
    argv += ["--tokens=1B"] if random.random() < 0.5 else []
    return Case(
        "size", (*argv, *random.choice(([], ["--format=json"]))), {"ds.json": config_text(random)}
    )


def models(random: Random) -> Case:
    argv = [
        "models",
        *random.choice(([], ["--format=json"], [f"--adapter={random.choice(TEXTS)}"])),
    ]
    argv += [f"--profile=params={random.choice(NUMBERS)}"] if random.random() < 0.5 else []
    return Case("models", tuple(word.replace("\0", "0") for word in argv))
