"""What the simulated dry run promises: the same bytes by a shorter way, errors in one line."""

import json
from collections import Counter
from dataclasses import replace

import pytest
from support.plans import make_plan
from support.simulated_jobs import HOST, TINY_LLAMA, config_of, request_for, tiny_llama

from zero_sizer.dryrun import simulated
from zero_sizer.dryrun.recording import from_json
from zero_sizer.dryrun.simulated import outputs, parent
from zero_sizer.errors import EngineError, UnsupportedError
from zero_sizer.ledger.kept_pinned import kept_bytes

pytestmark = pytest.mark.slow

BUCKET = {"reduce_bucket_size": 20_000}
ON_HOST = {"offload_optimizer": HOST, **BUCKET}
# 64 ranks do not divide these sizes, so gathers and scatters are padded.
ODD = {**TINY_LLAMA, "num_hidden_layers": 2, "vocab_size": 509, "intermediate_size": 157}
AT_64 = [
    request_for({"stage": 3, **BUCKET}, ranks=64, hf_config=ODD),
    request_for({"stage": 3, **BUCKET}, ranks=64, rank=63, hf_config=ODD),
    request_for({"stage": 3, **ON_HOST}, ranks=64, hf_config=ODD),
    request_for({"stage": 3, "zero_hpz_partition_size": 8, **BUCKET}, ranks=64, hf_config=ODD),
]
WORLD_SIZES = [1, 8, 64, 512, 4096]
SHALLOW = {**TINY_LLAMA, "num_hidden_layers": 1}
# Sub-groups below 1 MiB stay in memory, so the model must be wide enough to swap.
WIDE = {**TINY_LLAMA, "hidden_size": 512, "intermediate_size": 1024, "vocab_size": 4096}
NVME = {"device": "nvme", "nvme_path": "/tmp"}
PINNED = {"device": "cpu", "pin_memory": True}
TIED = {**TINY_LLAMA, "tie_word_embeddings": True}
PARKED = [  # ranks, and the model's config
    (ranks, {"stage": 3, "offload_param": PINNED, "offload_optimizer": optimizer}, config)
    for ranks, optimizer, config in ((1, PINNED, TIED), (4, HOST, TINY_LLAMA), (4, PINNED, TIED))
]
UNKNOWN = {"optimizer": {"type": "OneBitAdam", "params": {"lr": 1e-4}}}
REQUESTS = {
    "short": AT_64,
    "full": [replace(request, short_loops=False) for request in AT_64],
    "world sizes": [
        request_for({"stage": 3, **BUCKET}, ranks=ranks, hf_config=SHALLOW) for ranks in WORLD_SIZES
    ],
    "four": [request_for({"stage": 1, **BUCKET}, rank=rank) for rank in range(4)],
    "refused": [request_for({"stage": 2}, config=UNKNOWN)],
    "no such model": [request_for({"stage": 1}, hf_config={"model_type": "no-such-model"})],
    "failing": [request_for({"stage": 1, "allgather_bucket_size": 3})],
    "first again": [request_for({"stage": 1, **BUCKET})],
    "on GPU": [request_for({"stage": 2, **BUCKET}, keep_events=True)],
    "on host": [request_for({"stage": 2, **ON_HOST})],
    "events": [request_for({"stage": 3, **ON_HOST}, keep_events=True)],
    "parked": [request_for(zero, ranks=ranks, hf_config=config) for ranks, zero, config in PARKED],
    "nvme": [
        request_for({"stage": 3, "offload_optimizer": NVME, **BUCKET}, ranks=2, hf_config=WIDE)
    ],
}


@pytest.fixture(scope="module")
def answers():
    """Name of requests -> their answers in JSON, from one process."""
    found = iter(parent.answers([request for group in REQUESTS.values() for request in group]))
    return {name: [next(found) for _ in group] for name, group in REQUESTS.items()}


@pytest.fixture(scope="module")
def runs(answers):
    """Name of requests -> their recordings, of those that ran."""
    return {
        name: [from_json(answer) for answer in group]
        for name, group in answers.items()
        if "error" not in group[0]
    }


def _devices(recording):
    return [(phase.name, phase.device) for phase in recording.first.phases]


def test_shortened_loops_allocate_the_same_bytes_at_64_ranks(runs):
    for a, b in zip(runs["short"], runs["full"], strict=True):
        assert _devices(a) == _devices(b)


def test_world_sizes_from_1_to_4096_and_every_share_shrinks(runs):
    sizes = runs["world sizes"]
    masters = [run.first.last("init").num_bytes("master_weights") for run in sizes]
    assert masters == sorted(masters, reverse=True)
    # Every tensor is padded to the ranks: at 4096 ranks the norms' 64 elements cost one each.
    assert masters[0] > 60 * masters[WORLD_SIZES.index(64)]
    assert masters[-1] >= 4 * 12


def test_every_rank_of_four_holds_the_partitions_of_a_quarter(runs):
    masters = {run.first.last("step").num_bytes("master_weights") for run in runs["four"]}
    assert len(masters) == 1  # ZeRO-1 pads the flat group to equal partitions
    assert [run.first.rank for run in runs["four"]] == [0, 1, 2, 3]


def test_what_is_refused_is_one_line_and_does_not_stop_the_others(answers, runs):
    # The failing requests run between the first of four and the same one again.
    assert _devices(runs["four"][0]) == _devices(runs["first again"][0])
    for name in ("refused", "failing"):
        error = answers[name][0]["error"]
        assert (error["kind"], "\n" in error["message"]) == ("WitnessError", False)
    message = answers["refused"][0]["error"]["message"]
    assert "OneBitAdam is not a supported DeepSpeed Optimizer" in message
    error = answers["no such model"][0]["error"]
    assert error["kind"] == "UnsupportedError"
    assert "no-such-model" in error["message"]


def test_an_error_stands_where_a_recording_would():
    requests = [REQUESTS[name][0] for name in ("refused", "no such model")]
    failed, unknown = simulated.run_requests(requests)
    assert isinstance(failed, EngineError)
    assert failed.exit_code == 1
    assert isinstance(unknown, UnsupportedError)


def test_events_add_up_to_what_the_phases_say(answers):
    (answer,) = answers["events"]
    last = answer["phases"][-1]["device"]
    live = Counter()
    peak = 0
    for kind, _, num_bytes, _, device, phase, _ in answer["events"]:
        if device != "gpu" or kind == "empty_cache":
            continue
        live["gpu"] += (-(-num_bytes // 512) * 512) * (1 if kind == "alloc" else -1)
        peak = max(peak, live["gpu"]) if phase == "init" else peak
    # After the last phase the engine itself goes; before that the sums are the same.
    assert peak == answer["phases"][0]["device"]["gpu"]["max_allocated"]
    assert last["gpu"]["reserved"] >= last["gpu"]["allocated"]


def test_pinned_blocks_of_partitions_that_moved_are_kept_to_the_byte(answers, tmp_path):
    for answer, (ranks, zero, config) in zip(answers["parked"], PARKED, strict=True):
        plan = make_plan(config_of(zero), tiny_llama(tmp_path, **config), ranks, zero_init=True)
        host = answer["phases"][-1]["device"]["host"]
        kept = host["reserved"] - host["allocated"]
        assert kept == kept_bytes(plan) > 0, ranks


def test_trace_file_names_phase_and_module(tmp_path, answers):
    path = tmp_path / "trace.jsonl"
    outputs.write_trace(str(path), answers["on GPU"][0]["events"])
    events = [json.loads(line) for line in path.read_text().splitlines()]
    phases = {event["phase"] for event in events}
    assert phases == {"init", "forward", "backward", "step"}
    forward = {event["module"] for event in events if event["phase"] == "forward"}
    assert any(name.endswith("layers.1.mlp.down_proj") for name in forward)


def test_optimizer_offload_moves_the_states_to_the_host(runs):
    states = ("master_weights", "optimizer_states")
    a, b = (runs[name][0].first.last("step") for name in ("on GPU", "on host"))
    assert sum(b.num_bytes(s, "gpu") for s in states) == 0
    assert [a.num_bytes(s, "gpu") for s in states] == [b.num_bytes(s, "host") for s in states]


def test_nvme_files_hold_master_and_moments(runs):
    (run,) = runs["nvme"]
    partition = run.first.last("init").num_bytes("parameters") // 2
    assert run.first.last("step").device["nvme"]["allocated"] >= 3 * 4 * partition
