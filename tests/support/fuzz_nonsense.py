"""Nonsense: of a key that holds a number, what no reader may take without a word."""

import copy
import json
import math
from random import Random
from typing import Any

from support.fuzz_commands import CLUSTER
from support.fuzz_samples import ADAPTER, JOB, LLAMA, RECORDING, SAMPLE
from support.fuzz_values import Case


def nonsense(random: Random, *, is_int: bool) -> Any:
    """A negative, infinite or undefined number, a truth value, a text."""
    odd: list[Any] = [
        -1,
        -7,
        math.nan,
        math.inf,
        -math.inf,
        True,
        False,
        "5",
        "many",
        "-1",
        [1],
        {},
    ]
    return random.choice([*odd, 1.5] if is_int else odd)


CONFIG_NUMBERS = {
    "train_micro_batch_size_per_gpu": True,
    "gradient_accumulation_steps": True,
    "gradient_clipping": False,
    "zero_optimization.stage": True,
    "zero_optimization.reduce_bucket_size": True,
    "zero_optimization.stage3_prefetch_bucket_size": True,
    "zero_optimization.stage3_param_persistence_threshold": True,
    "zero_optimization.stage3_max_live_parameters": True,
    "zero_optimization.stage3_max_reuse_distance": True,
    "zero_optimization.sub_group_size": True,
    "zero_optimization.offload_optimizer.buffer_count": True,
    "zero_optimization.zero_hpz_partition_size": True,
}


def nonsense_config(random: Random) -> Case:
    key = random.choice(list(CONFIG_NUMBERS))
    config: Any = copy.deepcopy(SAMPLE)
    *way, last = key.split(".")
    parent = config
    for part in way:
        parent = parent[part]
    is_count = key != "gradient_accumulation_steps" and CONFIG_NUMBERS[key]
    parent[last] = nonsense(random, is_int=is_count)
    text = json.dumps(config)
    if random.random() < 0.1:  # a key twice
        parent[last] = 1
        text = json.dumps(config).replace(f'"{last}": 1', f'"{last}": 1, "{last}": 1')
    argv = ["check", "@/ds.json", "--model", "gpt2", *CLUSTER, "--format=json"]
    return Case("nonsense: config", tuple(argv), {"ds.json": text.encode()}, nonsense=key)


def nonsense_job(random: Random) -> Case:
    section, key = random.choice(
        (
            ("cluster", "nodes"),
            ("cluster", "gpus_per_node"),
            ("cluster", "gpu_memory"),
            ("cluster", "host_memory"),
            ("cluster", "nvme"),
            ("cluster", "matmul_tflops"),
            ("workload", "seq_len"),
            ("workload", "micro_batch"),
            ("workload", "grad_accum"),
        )
    )
    job: Any = {k: v for k, v in copy.deepcopy(JOB).items() if k not in ("adapter", "quantization")}
    job[section][key] = nonsense(random, is_int=key != "matmul_tflops")
    text = (
        json.dumps(job)
        .replace("-Infinity", "-.inf")
        .replace("Infinity", ".inf")
        .replace("NaN", ".nan")
    )
    return Case(
        "nonsense: job file",
        ("check", "@/job.yaml", "--format=json"),
        {"job.yaml": text.encode()},
        nonsense=key,
    )


def nonsense_model(random: Random) -> Case:
    key = random.choice(
        (
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "num_key_value_heads",
            "vocab_size",
        )
    )
    fields = {**LLAMA, key: nonsense(random, is_int=True)}
    files = {"config.json": json.dumps(fields).encode(), "ds.json": json.dumps(SAMPLE).encode()}
    argv = ("check", "@/ds.json", "--model", "@/config.json", *CLUSTER, "--format=json")
    return Case("nonsense: config.json", argv, files, nonsense=key)


def nonsense_adapter(random: Random) -> Case:
    key = random.choice(("r", "lora_alpha", "lora_dropout", "layers_to_transform"))
    odd = nonsense(random, is_int=key in ("r", "layers_to_transform"))
    if key == "layers_to_transform" and odd == [1]:
        odd = [True]
    fields = {**ADAPTER, key: odd}
    files = {
        "a.json": json.dumps(fields).encode(),
        "ds.json": json.dumps(SAMPLE).encode(),
        "config.json": json.dumps(LLAMA).encode(),
    }
    argv = (
        "check",
        "@/ds.json",
        "--model",
        "@/config.json",
        "--adapter",
        "@/a.json",
        *CLUSTER,
        "--format=json",
    )
    return Case("nonsense: adapter", argv, files, nonsense=key)


def nonsense_recording(random: Random) -> Case:
    found: Any = copy.deepcopy(RECORDING)
    node, key = random.choice(
        (
            (found, "world_size"),
            (found, "rank"),
            (found["phases"][0], "micro_step"),
            (found["phases"][1]["device"]["gpu"], "allocated"),
            (found["phases"][2]["live"][0], "num_bytes"),
            (found["job"], "local_world_size"),
            (found["rooms"][0], "num_bytes"),
        )
    )
    node[key] = nonsense(random, is_int=True)
    files = {"r.json": json.dumps(found).encode(), "ds.json": json.dumps(SAMPLE).encode()}
    argv = (
        "crosscheck",
        "@/ds.json",
        "--model",
        "gpt2",
        *CLUSTER,
        "--recording",
        "@/r.json",
        "--format=json",
    )
    return Case("nonsense: recording", argv, files, nonsense=key)
