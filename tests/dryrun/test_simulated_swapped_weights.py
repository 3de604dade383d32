"""Weights that are read from NVMe in a step: where DeepSpeed stops, and what its GPU holds else."""

import json
import re

import pytest

from zero_sizer.dryrun.simulated import run_requests
from zero_sizer.dryrun.simulated.parent import request_of
from zero_sizer.errors import WitnessError
from zero_sizer.hardware.device import Device
from zero_sizer.job.fields import Flags
from zero_sizer.job.read import read
from zero_sizer.sizing import size

pytestmark = pytest.mark.slow

LLAMA = {  # half a matrix is 1 MiB and more, which is written to NVMe; that of keys is less
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    **{"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 4, "vocab_size": 8192},
    **{"num_attention_heads": 8, "num_key_value_heads": 4, "tie_word_embeddings": False},
}
FREE = {"stage3_prefetch_bucket_size": 5_000_000, "stage3_max_reuse_distance": 0}
PREFETCH = "stage3_prefetch_bucket_size"
JOBS = {
    "read ahead": (20, {PREFETCH: 5_000_000, "stage3_max_reuse_distance": 0}),
    "kept for reuse": (12, {}, True),
    "read ahead too far": (64, {PREFETCH: 1_000_000}),
    "what stays, gathered by the step": (5, {"stage3_param_persistence_threshold": 3e6}),
    "before any step": (10, {PREFETCH: 0}, False, 2),
}
"""Buffers, keys, checkpointing, gradient accumulation."""


def job_of(model, count, zero, checkpointing=False, accumulation=1):
    weights = {"device": "nvme", "nvme_path": "/nvme", "max_in_cpu": 0, "buffer_count": count}
    config = {
        "bf16": {"enabled": True},
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-4}},
        "zero_optimization": {
            "stage": 3,
            "offload_optimizer": {"device": "cpu"},
            "offload_param": {**weights, "buffer_size": 20_000_000},
            **zero,
        },
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": accumulation,
    }
    cluster = {"gpus_per_node": 2, "gpu": "a100-80gb", "host_memory": "64GiB", "nvme": "1TB"}
    flags = Flags(model=model, seq_len=16, checkpointing=checkpointing, attention="sdpa", **cluster)
    return read(config, flags)


def told(sizing):
    return [f for f in sizing.findings if f.code == "nvme-weight-buffers"]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Name -> the sizing, and what the engine answers; a stop's remedy, and one buffer fewer."""
    pytest.importorskip("deepspeed")
    path = tmp_path_factory.mktemp("model") / "config.json"
    path.write_text(json.dumps(LLAMA))
    jobs = {name: job_of(str(path), *how) for name, how in JOBS.items()}
    (finding,) = told(size(jobs["read ahead too far"]))
    fewest = int(re.match(r"set it to (\d+)", finding.remedy)[1])
    others = JOBS["read ahead too far"][1:]
    jobs |= {n: job_of(str(path), fewest - n, *others) for n in (0, 1)}
    answers = run_requests([request_of(job, rank=0, steps=2) for job in jobs.values()])
    pairs = zip(map(size, jobs.values()), answers, strict=True)
    return dict(zip(jobs, pairs, strict=True))


@pytest.mark.parametrize("name", ["read ahead", 0])
def test_the_peak_is_the_simulated_one(found, name):
    sizing, recording = found[name]
    peak = recording.first.peak()["gpu"]
    assert sizing.peaks[Device.GPU].num_bytes == pytest.approx(peak, rel=0.002)


def test_the_engine_stops_where_it_is_told_and_with_that_message(found):
    for name, (sizing, answer) in found.items():
        stops = isinstance(answer, WitnessError)
        assert (stops, stops) == (not sizing.is_valid, bool(told(sizing))), name
        if stops:
            (finding,) = told(sizing)
            assert re.search(r'"(param )?(.*?)( id)?"', finding.message)[2] in str(answer)


def test_the_remedy_is_the_fewest_buffers_with_which_the_engine_runs(found):
    (_, enough), (_, short) = found[0], found[1]
    assert enough.first.phases
    assert "Not enough buffers 0 for swapping 1" in str(short)
