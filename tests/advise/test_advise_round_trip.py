"""An emitted job goes back into check and dryrun: the engine stays within what was predicted."""

import json
import tempfile

import pytest

from zero_sizer import cli, sizing
from zero_sizer.hardware.device import Device
from zero_sizer.job.read import read

COMMON = ("--host-memory", "128GiB", "--nvme", "1TB", "--attention", "sdpa", "--tokens", "2B")
PLANS = {
    "one GPU": "gpt2 --gpu t4 --seq-len 512",
    "two nodes": "smollm2-135m --gpu a10g-24gb --nodes 2 --gpus-per-node 4 --seq-len 1024",
    "a fixed batch": "opt-125m --gpu v100-16gb --gpus-per-node 8 --seq-len 1024 "
    "--train-batch-size 128",
    "checkpointed": "qwen2.5-0.5b --gpu rtx-3090 --gpus-per-node 2 --seq-len 2048 --checkpointing",
    "an adapter": "llama-3.2-1b --gpu rtx-4090 --gpus-per-node 2 --seq-len 1024 "
    "--adapter r=8,targets=all-linear",
    "offloaded": "llama-3.2-1b --gpu rtx-3090 --gpu-memory 9GiB --gpus-per-node 2 --seq-len 512 "
    "--checkpointing",
}


def emitted(path, capsys, flags):
    """The answer of ``choose``, whose job is written to ``path``."""
    asked = [
        "choose",
        "--model",
        *flags.split(),
        *COMMON,
        "--emit-job",
        str(path),
        "--format",
        "json",
    ]
    assert cli.main(asked) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_the_engine_stays_within_what_check_says_of_emitted_jobs(tmp_path, capsys):
    """Whole small models; check is asked of the same files, and so is their amount."""
    from zero_sizer.dryrun.simulated import run_requests
    from zero_sizer.dryrun.simulated.parent import request_of

    paths = {name: tmp_path / f"{number}.yaml" for number, name in enumerate(PLANS)}
    chosen = {name: emitted(path, capsys, PLANS[name]) for name, path in paths.items()}
    jobs = {name: read(str(path)) for name, path in paths.items()}
    strategies = {answer["chosen"]["strategy"] for answer in chosen.values()}
    assert len(strategies) >= 3, strategies
    with tempfile.TemporaryDirectory() as swap:
        requests = [request_of(job, rank=0, steps=2, nvme_path=swap) for job in jobs.values()]
        recordings = run_requests(requests)
    for (name, job), recording in zip(jobs.items(), recordings, strict=True):
        if isinstance(recording, Exception):
            raise recording
        sized = sizing.size(job)
        need, there = sized.needs[Device.GPU], sized.capacities[Device.GPU]
        peak = chosen[name]["chosen"]["peak_bytes"]["gpu"]
        assert sized.peaks[Device.GPU].num_bytes == peak, name
        assert job.workload.tokens == 2 * 10**9
        measured = recording.first.peak()["gpu"]
        assert measured == pytest.approx(peak, rel=1e-4), name
        assert measured + there.outside.expected <= need.high, name
        assert measured == pytest.approx(need.low - there.outside.low, rel=0.01), name
        assert measured + there.outside.high <= job.cluster.gpu_memory, name


@pytest.mark.slow
def test_an_emitted_job_is_a_dry_run_of_its_own(tmp_path, capsys):
    path = tmp_path / "job.yaml"
    answer = emitted(path, capsys, PLANS["two nodes"])
    assert cli.main(["check", str(path), "--format", "json"]) == 0
    checked = json.loads(capsys.readouterr().out)
    assert checked["training"]["steps"] == answer["chosen"]["training"]["steps"]
    assert checked["training"]["days"] == answer["chosen"]["training"]["days"]
    assert cli.main(["dryrun", str(path), "--how", "simulated", "--format", "json"]) == 0
    recorded = json.loads(capsys.readouterr().out)
    assert recorded["world_size"] == answer["chosen"]["world_size"]
    assert recorded["job"]["micro_batch"] == answer["chosen"]["micro_batch"]
