"""Recordings of trained runs, as a callback writes them, and the profile that they become."""

import json

from jsonschema import Draft202012Validator
from support.answers import closed

from zero_sizer import cli
from zero_sizer.units import GIB, MIB

MODEL = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 12,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "vocab_size": 32000,
}
CONFIG = {
    "train_micro_batch_size_per_gpu": 4,
    "zero_optimization": {"stage": 2},
    "bf16": {"enabled": True},
    "optimizer": {"type": "AdamW", "params": {"lr": 1e-4}},
}
JOB = {
    "hf_config": MODEL,
    "config": CONFIG,
    "name": "small",
    "gpu": "a100-80gb",
    "gpu_name": "NVIDIA A100-SXM4-80GB",
    "gpu_bytes": 84_974_239_744,
    "local_world_size": 8,
    "micro_batch": 4,
    "grad_accum": 1,
    "seq_len": 2048,
    "attention": "flash",
    "checkpointing": False,
    "sequences": "equal",
}


def recorded(
    *, world_size=8, outside=900 * MIB, seconds=0.5, how="trained", allocated=8 * GIB, **job
):
    """A recording of one rank of a run; what lies outside PyTorch's reserve may be a list."""
    taken = outside if isinstance(outside, list) else [outside]
    reserved = int(allocated * 1.25)
    phases = [
        {
            "name": name,
            "step": step,
            "micro_step": 0,
            "device": {
                "gpu": {
                    "allocated": allocated,
                    "max_allocated": allocated,
                    "reserved": reserved,
                    "max_reserved": reserved,
                    "used": reserved + taken[min(step, len(taken) - 1)],
                },
                "host": {"resident": 3 * GIB},
            },
            "live": [],
        }
        for step in range(max(2, len(taken)))
        for name in ("forward", "backward", "step")
    ]
    steps = [{"step": step, "seconds": seconds, "tokens": 8192} for step in range(8)]
    return {
        "schema_version": 1,
        "how": how,
        "versions": {"torch": "2.13"},
        "world_size": world_size,
        "rank": 0,
        "job": {**JOB, **job},
        "phases": phases,
        "peak": {"gpu": allocated},
        "log": [],
        "notes": [],
        "rooms": [],
        "prediction": {},
        "ranks": [{"rank": 0, "phases": phases, "steps": steps, "skipped_steps": 0, "notes": []}],
    }


def profile_of(paths, name="cluster.json"):
    assert cli.main(["calibrate", *paths, "--output", name]) == 0
    with open(name, encoding="utf-8") as file:
        values = json.load(file)
    assert not list(Draft202012Validator(closed("calibrate")).iter_errors(values))
    return values
