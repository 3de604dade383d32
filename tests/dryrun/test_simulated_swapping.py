"""Optimizer states and weights on NVMe, or partly on the host: check beside the simulated engine.

The model is wide enough that its sub-groups are swapped (each is 1 MiB and more): small ones stay
in memory, and then nothing of this happens. The first step of all makes the states in ordinary
memory; DeepSpeed's pipelined swapper keeps them there until the second.
"""

import json

import pytest

from zero_sizer.dryrun.simulated import run_requests
from zero_sizer.dryrun.simulated.parent import request_of
from zero_sizer.errors import WitnessError
from zero_sizer.hardware.device import Device
from zero_sizer.job.fields import Flags
from zero_sizer.job.read import read
from zero_sizer.ledger.moments import Moment, Phase
from zero_sizer.sizing import size

pytestmark = pytest.mark.slow

STEPPING = {Phase.INIT, Phase.FORWARD, Phase.BACKWARD, Phase.STEP}  # a simulated run saves nothing

LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    **{"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 4, "vocab_size": 16384},
    **{"num_attention_heads": 8, "num_key_value_heads": 4, "tie_word_embeddings": True},
}
SWAP = {"device": "nvme", "nvme_path": "/nvme", "pin_memory": True, "buffer_count": 4}
PIPELINED = {**SWAP, "buffer_count": 8, "pipeline_read": True}
BOTH = {**PIPELINED, "pipeline_write": True}
ON_HOST = {"device": "cpu", "pin_memory": True}
NOT_PINNED = {"device": "cpu", "pin_memory": False}
WEIGHTS = {"device": "nvme", "nvme_path": "/nvme", "max_in_cpu": 0, "buffer_count": 40}
WEIGHTS |= {"buffer_size": 10_000_000}
JOBS = {
    "one rank, one bucket": (1, "AdamW", {"offload_optimizer": SWAP}),
    "many buckets": (1, "AdamW", {"offload_optimizer": SWAP, "reduce_bucket_size": 2_000_000}),
    "sub-groups": (2, "AdamW", {"offload_optimizer": SWAP, "sub_group_size": 3_000_000}),
    "pipelined": (2, "AdamW", {"offload_optimizer": PIPELINED, "sub_group_size": 3_000_000}),
    "read ahead, too few": (
        2,
        "AdamW",
        {"offload_optimizer": {**PIPELINED, "buffer_count": 7}, "sub_group_size": 3_000_000},
    ),
    "read and written, too few": (
        2,
        "AdamW",
        {"offload_optimizer": {**BOTH, "buffer_count": 11}, "sub_group_size": 3_000_000},
    ),
    "read and written, one sub-group": (
        2,
        "AdamW",
        {"offload_optimizer": {**BOTH, "buffer_count": 4}},
    ),
    "part on the GPU": (
        1,
        "AdamW",
        {"offload_optimizer": {**ON_HOST, "ratio": 0.5}, "sub_group_size": 3_000_000},
    ),
    "part on the GPU, not pinned": (
        2,
        "AdamW",
        {"offload_optimizer": {**NOT_PINNED, "ratio": 0.3}, "sub_group_size": 2_000_000},
    ),
    "part for another optimizer": (
        2,
        "AdamW",
        {"offload_optimizer": {**SWAP, "ratio": 0.3}, "sub_group_size": 2_000_000},
    ),
    "Lion, too few": (2, "Lion", {"offload_optimizer": {**SWAP, "buffer_count": 3}}),
    "weights on NVMe": (
        2,
        "AdamW",
        {"offload_optimizer": ON_HOST, "offload_param": WEIGHTS, "stage3_prefetch_bucket_size": 0},
    ),
    "what stays gathered": (
        2,
        "AdamW",
        {
            "offload_optimizer": SWAP,
            "offload_param": ON_HOST,
            "reduce_bucket_size": 1_000_000,
            "stage3_param_persistence_threshold": 1_000_000,
        },
    ),
    "one moment": (2, "Adagrad", {"offload_optimizer": SWAP}),
    "no multiple of a block": (
        3,
        "AdamW",
        {"offload_optimizer": SWAP, "reduce_bucket_size": 2_000_000},
    ),
    "weights on the host": (3, "AdamW", {"offload_optimizer": SWAP, "offload_param": ON_HOST}),
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Name -> the sizing, and the recording of the rank that it is about, or the error."""
    pytest.importorskip("deepspeed")
    model = tmp_path_factory.mktemp("model") / "config.json"
    model.write_text(json.dumps(LLAMA))
    jobs = {name: job_of(str(model), *fields) for name, fields in JOBS.items()}
    sizings = {name: size(job) for name, job in jobs.items()}
    requests = [request_of(jobs[name], rank=s.plan.rank, steps=2) for name, s in sizings.items()]
    found = zip(sizings.values(), run_requests(requests), strict=True)
    return dict(zip(sizings, found, strict=True))


def job_of(model, gpus, optimizer, zero):
    config = {
        "bf16": {"enabled": True},
        "optimizer": {"type": optimizer, "params": {"lr": 1e-4}},
        "zero_optimization": {"stage": 3, "reduce_bucket_size": 50_000_000, **zero},
        "train_micro_batch_size_per_gpu": 1,
    }
    cluster = {"gpus_per_node": gpus, "gpu": "a100-80gb", "host_memory": "64GiB", "nvme": "1TB"}
    return read(config, Flags(model=model, seq_len=16, sequences="equal", **cluster))


@pytest.mark.parametrize("name", [name for name in JOBS if "too few" not in name])
def test_the_peaks_are_the_simulated_ones(answers, name):
    sizing, recording = answers[name]
    peak = recording.first.peak()
    assert sizing.peaks[Device.GPU].num_bytes == pytest.approx(peak["gpu"], rel=0.002)
    moments = sizing.moments[Device.HOST]
    on_host = max(size for moment, size in moments.items() if moment.phase in STEPPING)
    if name == "weights on NVMe":  # init has an empty tensor for the pool, which nothing touches
        later = [p for p in recording.first.phases if p.name == "forward"]
        peak["host"] = max(phase.device["host"]["max_allocated"] for phase in later)
        on_host = moments[Moment.FORWARD]
    within = 0.002 if name == "weights on NVMe" else 1e-4
    assert on_host == pytest.approx(peak["host"] * JOBS[name][0], rel=within)


def test_what_stays_gathered_is_there_as_the_step_begins(answers):
    sizing, recording = answers["what stays gathered"]
    moments = sizing.moments[Device.GPU]
    step = max(size for moment, size in moments.items() if moment.phase is Phase.STEP)
    steps = [phase.device["gpu"] for phase in recording.first.phases if phase.name == "step"]
    assert step == pytest.approx(max(s["max_allocated"] for s in steps), rel=0.002)


def test_the_first_step_is_the_highest_of_the_host(answers):
    sizing, recording = answers["many buckets"]
    of_states = next(a for a in sizing.allocations if a.name == "new_optimizer_states")
    first, second = [
        phase.device["host"]["max_allocated"]
        for phase in recording.first.phases
        if phase.name == "step"
    ]
    assert first - second == pytest.approx(of_states.num_bytes, abs=1000)


@pytest.mark.parametrize("name", JOBS)
def test_buffers_that_run_out_are_an_error_where_the_engine_stops(answers, name):
    sizing, recording = answers[name]
    stops = isinstance(recording, WitnessError)
    assert stops == ("too few" in name)
    said = {finding.code for finding in sizing.findings}
    assert stops == bool({"nvme-buffers", "nvme-buffer-count"} & said)
    assert stops != sizing.is_valid
