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
RUNS = {
    "read ahead": (20, FREE),
    "read ahead through few buffers": (4, FREE),
    "one after the other": (4, {"stage3_prefetch_bucket_size": 0, "stage3_max_reuse_distance": 0}),
}
STOPS = {
    "kept for reuse": (12, {}, True, 1),
    "read ahead too far": (64, {}, True, 1),
    "what stays, gathered by the step": (5, {"stage3_param_persistence_threshold": 3e6}, False, 1),
    "before any step": (10, {"stage3_prefetch_bucket_size": 0}, False, 2),
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
def model(tmp_path_factory):
    pytest.importorskip("deepspeed")
    path = tmp_path_factory.mktemp("model") / "config.json"
    path.write_text(json.dumps(LLAMA))
    return str(path)


def test_the_peaks_are_the_simulated_ones(model):
    jobs = [job_of(model, *RUNS[name]) for name in RUNS]
    found = run_requests([request_of(job, rank=0, steps=2) for job in jobs])
    for job, recording in zip(jobs, found, strict=True):
        sizing = size(job)
        assert not told(sizing)
        peak = recording.first.peak()["gpu"]
        assert sizing.peaks[Device.GPU].num_bytes == pytest.approx(peak, rel=0.002)


def test_the_engine_stops_where_it_is_told_and_not_with_what_is_told_to_set(model):
    jobs, kinds = [], []
    for count, *others in STOPS.values():
        job = job_of(model, count, *others)
        (finding,) = told(size(job))
        fewest = int(re.match(r"set it to (\d+)", finding.remedy)[1])
        jobs += [job, job_of(model, fewest, *others), job_of(model, fewest - 1, *others)]
        message = re.search(r'"(.*?)( id)?"', finding.message)[1]
        kinds += [message.removeprefix("param "), None, "swap"]
    found = run_requests([request_of(job, rank=0, steps=2) for job in jobs])
    for job, kind, recording in zip(jobs, kinds, found, strict=True):
        assert size(job).is_valid == (kind is None)
        assert isinstance(recording, WitnessError) == (kind is not None)
        assert kind is None or kind in str(recording)
