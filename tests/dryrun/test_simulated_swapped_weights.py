"""Weights that lie elsewhere in a step beside the simulated engine.

Of those on NVMe, where DeepSpeed stops, and what its GPU holds else; of those on the host, what
differs from one micro step to the next. One child process runs all of them.
"""

import json
import re

import pytest

from zero_sizer.dryrun.simulated import run_requests
from zero_sizer.dryrun.simulated.parent import request_of
from zero_sizer.errors import WitnessError
from zero_sizer.hardware.device import Device
from zero_sizer.job.fields import Flags
from zero_sizer.job.read import read
from zero_sizer.ledger.moments import STEPPING, Phase
from zero_sizer.ledger.peak import phase_peaks
from zero_sizer.sizing import size
from zero_sizer.units import MIB

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


HOST = {"device": "cpu"}
WIDE = {"num_hidden_layers": 2, "num_attention_heads": 8}
MODELS = {
    "gpt_neox": {**WIDE, "hidden_size": 1024, "intermediate_size": 8192, "vocab_size": 8192},
    "deepseek_v2": {
        **WIDE,
        **{"hidden_size": 512, "intermediate_size": 1024, "vocab_size": 1024},
        **{"num_key_value_heads": 8, "q_lora_rank": None, "kv_lora_rank": 128},
        **{"qk_nope_head_dim": 64, "qk_rope_head_dim": 32, "v_head_dim": 64},
        **{"n_routed_experts": 16, "n_shared_experts": 1, "num_experts_per_tok": 2},
        **{"moe_intermediate_size": 512, "first_k_dense_replace": 1},
        **{"topk_method": "greedy", "n_group": 1, "topk_group": 1},
    },
    "cohere": {  # of which nothing was traced
        **{"num_hidden_layers": 3, "num_attention_heads": 8, "num_key_value_heads": 8},
        **{"hidden_size": 512, "intermediate_size": 2048, "vocab_size": 64_000},
    },
    "bloom": {"hidden_size": 512, "n_layer": 16, "n_head": 8, "vocab_size": 110_000},
}
REUSE = "stage3_max_reuse_distance"
PARKED = {  # model, checkpointing, tokens, keys
    "a product with a bias lets go of its weight before either is reduced": (
        ("gpt_neox", True, 64),
        {REUSE: 10_000_000, "reduce_bucket_size": 20_000_000},
    ),
    "experts have gone when what is left of them and their router are reduced": (
        ("deepseek_v2", False, 64),
        {REUSE: 0, "reduce_bucket_size": 1_000_000},
    ),
    "a tied head's gradient waits for the embedding's, in closed form too": (
        ("cohere", False, 16),
        {},
    ),
}
AGAIN = (("bloom", False, 32), {REUSE: 53_000_000, "reduce_bucket_size": 1_000_000})
"""Forward of the first step, which does not keep the tied head, brings its partition twice."""


def parked_job(folder, how, zero):
    model, checkpointing, seq_len = how
    path = folder / f"{model}.json"
    path.write_text(json.dumps({"model_type": model, **MODELS[model]}))
    config = {
        "bf16": {"enabled": True},
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-4}},
        "train_micro_batch_size_per_gpu": 1,
        "zero_optimization": {
            "stage": 3,
            "offload_optimizer": HOST,
            "offload_param": HOST,
            "stage3_param_persistence_threshold": 10_000,
            "stage3_prefetch_bucket_size": 0,
            **zero,
        },
    }
    cluster = {"gpus_per_node": 2, "gpu": "a100-80gb", "host_memory": "64GiB"}
    ways = {"seq_len": seq_len, "sequences": "equal", "attention": "sdpa"}
    return read(config, Flags(model=str(path), checkpointing=checkpointing, **ways, **cluster))


def told(sizing):
    return [f for f in sizing.findings if f.code == "nvme-weight-buffers"]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Name -> the sizing, and what the engine answers; a stop's remedy, and one buffer fewer."""
    pytest.importorskip("deepspeed")
    folder = tmp_path_factory.mktemp("models")
    path = folder / "config.json"
    path.write_text(json.dumps(LLAMA))
    jobs = {name: job_of(str(path), *how) for name, how in JOBS.items()}
    (finding,) = told(size(jobs["read ahead too far"]))
    fewest = int(re.match(r"set it to (\d+)", finding.remedy)[1])
    others = JOBS["read ahead too far"][1:]
    jobs |= {n: job_of(str(path), fewest - n, *others) for n in (0, 1)}
    parked = {**PARKED, "again": AGAIN}
    jobs |= {name: parked_job(folder, *how) for name, how in parked.items()}
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


def phases_of(found, name):
    """Bytes that are predicted and simulated on the GPU, by phase."""
    sizing, recording = found[name]
    predicted = phase_peaks(sizing.moments[Device.GPU])
    records = recording.ranks[0].phases
    for phase in STEPPING:
        of_phase = (r.device["gpu"] for r in records if r.name == phase.value)
        yield phase, predicted[phase], max(held["max_allocated"] for held in of_phase)


@pytest.mark.parametrize("name", PARKED)
def test_each_phase_is_the_simulated_one(found, name):
    for phase, predicted, simulated in phases_of(found, name):
        assert predicted == pytest.approx(simulated, rel=0.002), phase


def test_a_tied_head_is_brought_to_the_gpu_a_second_time(found):
    """Backward's workspace, which is counted in every step, is not there in the first forward."""
    for phase, predicted, simulated in phases_of(found, "again"):
        if phase is Phase.FORWARD:
            assert simulated <= predicted <= simulated + 9 * MIB
        else:
            assert predicted == pytest.approx(simulated, rel=0.002), phase
