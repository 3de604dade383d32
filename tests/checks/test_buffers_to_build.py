"""Buffers for swapped weights while transformers builds a model, against the engine."""

from dataclasses import replace

import pytest

from zero_sizer.dryrun.simulated import parent
from zero_sizer.dryrun.truncate import cut_model
from zero_sizer.job.fields import Flags
from zero_sizer.job.read import read, without_config
from zero_sizer.sizing import size

CASES = [(2, "smollm2-135m", 3), (3, "smollm2-135m", None), (1, "gpt2", 2), (2, "gpt2", None)]
"""Buffers, model, and the weights that are gathered at once where the buffers are too few."""


def job_of(count, model, folder, **how):
    swap = {"device": "nvme", "nvme_path": str(folder), "buffer_count": count, **how}
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "bf16": {"enabled": True},
        "optimizer": {"type": "AdamW"},
        "zero_optimization": {
            "stage": 3,
            "offload_optimizer": {"device": "cpu"},
            "offload_param": swap,
        },
    }
    flags = Flags(
        model=model,
        gpus_per_node=1,
        gpu="a100-80gb",
        seq_len=64,
        host_memory="64GiB",
        nvme="1TB",
        zero_init=True,
        attention="sdpa",
        checkpointing=False,
    )
    return without_config(config, flags)


@pytest.mark.parametrize(("count", "model", "needed"), CASES)
def test_too_few_buffers_to_build_a_model_are_told(tmp_path, count, model, needed):
    found = [
        finding
        for finding in size(job_of(count, model, tmp_path)).findings
        if finding.code == "nvme-buffers-to-build"
    ]
    assert [f"set it to {needed} or more"] * bool(needed) == [f.remedy for f in found]


SMALL = (5, "smollm2-135m"), {"buffer_size": 10_000_000}  # of 28 million of the embedding


def test_a_buffer_smaller_than_a_partition_is_told_whatever_max_in_cpu_is(tmp_path):
    (count, model), how = SMALL
    training = job_of(count, model, tmp_path, **how)
    config = dict(training.document.values)
    del config["optimizer"], config["zero_optimization"]["offload_optimizer"]
    inference = read(config, Flags(model=model, task="inference", gpus_per_node=1, seq_len=64))
    for job in (training, inference):
        found = size(job)
        assert not found.is_valid
        assert "nvme-buffer-size" in {finding.code for finding in found.findings}


@pytest.mark.slow
def test_the_engine_stops_there(tmp_path):
    (count, model), how = SMALL
    jobs = [job_of(count, model, tmp_path) for count, model, _ in CASES[:2]]
    jobs.append(job_of(count, model, tmp_path, **how))
    cut = [replace(job, model=cut_model(job.model, 1)) for job in jobs]
    requests = [parent.request_of(job, rank=0, steps=1, nvme_path=str(tmp_path)) for job in cut]
    short, enough, small = parent.run_requests(requests)
    assert "Not enough buffers 2 for swapping 3" in str(short)
    assert enough.first.phases
    assert "More elements 28311552 than buffer size 10000000" in str(small)
