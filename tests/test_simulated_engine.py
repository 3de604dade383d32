"""What the simulated dry run promises: the same bytes by a shorter way, errors in one line."""

import json
from collections import Counter
from dataclasses import replace

import pytest
from simulated_jobs import HOST, TINY_LLAMA, request_for

from zero_sizer.errors import UnsupportedError, WitnessError
from zero_sizer.witnesses import simulated
from zero_sizer.witnesses.simulated import outputs, parent

pytestmark = pytest.mark.slow

BUCKET = {"reduce_bucket_size": 20_000}


def _devices(recording):
    return [(phase.name, phase.device) for phase in recording.first.phases]


def test_shortened_loops_allocate_the_same_bytes_at_64_ranks():
    # 64 ranks do not divide these sizes, so gathers and scatters are padded.
    odd = {**TINY_LLAMA, "vocab_size": 509, "intermediate_size": 157}
    variants = [
        request_for({"stage": 3, **BUCKET}, ranks=64, hf_config=odd),
        request_for({"stage": 3, **BUCKET}, ranks=64, rank=63, hf_config=odd),
        request_for({"stage": 3, "offload_optimizer": HOST, **BUCKET}, ranks=64, hf_config=odd),
        request_for({"stage": 3, "zero_hpz_partition_size": 8, **BUCKET}, ranks=64, hf_config=odd),
    ]
    short = simulated.run_requests(variants)
    full = simulated.run_requests([replace(r, short_loops=False) for r in variants])
    for a, b in zip(short, full, strict=True):
        assert _devices(a) == _devices(b)


def test_world_sizes_from_1_to_4096_and_every_share_shrinks():
    sizes = [1, 2, 8, 64, 512, 4096]
    runs = simulated.run_requests(
        [request_for({"stage": 3, **BUCKET}, ranks=ranks) for ranks in sizes]
    )
    masters = [run.first.last("init").num_bytes("master_weights") for run in runs]
    assert masters == sorted(masters, reverse=True)
    # Every tensor is padded to the ranks: at 4096 ranks the norms' 64 elements cost one each.
    assert masters[0] > 60 * masters[3]
    assert masters[-1] >= 4 * 30


def test_every_rank_of_four_holds_the_partitions_of_a_quarter():
    runs = simulated.run_requests(
        [request_for({"stage": 1, **BUCKET}, rank=rank) for rank in range(4)]
    )
    masters = {run.first.last("step").num_bytes("master_weights") for run in runs}
    assert len(masters) == 1  # ZeRO-1 pads the flat group to equal partitions
    assert [run.first.rank for run in runs] == [0, 1, 2, 3]


def test_deepspeeds_refusal_is_one_line_with_its_words():
    bad = request_for(
        {"stage": 2}, config={"optimizer": {"type": "OneBitAdam", "params": {"lr": 1e-4}}}
    )
    with pytest.raises(WitnessError) as caught:
        simulated.run_request(bad)
    assert "OneBitAdam is not a supported DeepSpeed Optimizer" in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.exit_code == 3


def test_a_model_type_transformers_does_not_know_is_unsupported():
    request = request_for({"stage": 1}, hf_config={"model_type": "no-such-model"})
    with pytest.raises(UnsupportedError, match="no-such-model"):
        simulated.run_request(request)


def test_one_failing_request_does_not_stop_the_others():
    good = request_for({"stage": 1, **BUCKET})
    bad = request_for({"stage": 1, "allgather_bucket_size": 3})
    first, failed, last = simulated.run_requests([good, bad, good])
    assert isinstance(failed, WitnessError)
    assert _devices(first) == _devices(last)


def test_events_add_up_to_what_the_phases_say():
    request = request_for({"stage": 3, "offload_optimizer": HOST, **BUCKET}, keep_events=True)
    answer = parent.answer(request)
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


def test_trace_file_names_phase_and_module(tmp_path):
    request = request_for({"stage": 2, **BUCKET}, keep_events=True)
    path = tmp_path / "trace.jsonl"
    outputs.write_trace(str(path), parent.answer(request)["events"])
    events = [json.loads(line) for line in path.read_text().splitlines()]
    phases = {event["phase"] for event in events}
    assert phases == {"init", "forward", "backward", "step"}
    forward = {event["module"] for event in events if event["phase"] == "forward"}
    assert any(name.endswith("layers.1.mlp.down_proj") for name in forward)


def test_optimizer_offload_moves_the_states_to_the_host():
    on_gpu, on_host = simulated.run_requests(
        [
            request_for({"stage": 2, **BUCKET}),
            request_for({"stage": 2, "offload_optimizer": HOST, **BUCKET}),
        ]
    )
    states = ("master_weights", "optimizer_states")
    a, b = on_gpu.first.last("step"), on_host.first.last("step")
    assert sum(b.num_bytes(s, "gpu") for s in states) == 0
    assert [a.num_bytes(s, "gpu") for s in states] == [b.num_bytes(s, "host") for s in states]


def test_nvme_files_hold_master_and_moments():
    # Sub-groups below 1 MiB stay in memory, so the model must be wide enough to swap.
    wide = {**TINY_LLAMA, "hidden_size": 512, "intermediate_size": 1024, "vocab_size": 4096}
    nvme = {"device": "nvme", "nvme_path": "/tmp"}
    (run,) = simulated.run_requests(
        [request_for({"stage": 3, "offload_optimizer": nvme, **BUCKET}, ranks=2, hf_config=wide)]
    )
    partition = run.first.last("init").num_bytes("parameters") // 2
    assert run.first.last("step").device["nvme"]["allocated"] >= 3 * 4 * partition
