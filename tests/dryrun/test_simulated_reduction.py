"""Gradients in no buffer, buckets that are cut, Muon's groups: check beside the simulated engine.

Public configs switch ``contiguous_gradients`` and ``reduce_scatter`` off; Muon at stage 3 has to.
"""

import json

import pytest

from zero_sizer.dryrun.simulated import run_requests
from zero_sizer.dryrun.simulated.parent import request_of
from zero_sizer.hardware.device import Device
from zero_sizer.job.fields import Flags
from zero_sizer.job.read import read
from zero_sizer.ledger.moments import Phase
from zero_sizer.ledger.peak import phase_peaks
from zero_sizer.sizing import size

pytestmark = pytest.mark.slow

LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    **{"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 4, "vocab_size": 50257},
    **{"num_attention_heads": 8, "num_key_value_heads": 4, "tie_word_embeddings": False},
}
LOOSE = {"contiguous_gradients": False}
WHOLE = {"reduce_scatter": False}  # all ranks get all of a gradient
SMALL = {"reduce_bucket_size": 10**6}  # the embedding does not fit into it
MEDIUM = {"reduce_bucket_size": 3 * 10**7}
HOST = {"offload_optimizer": {"device": "cpu", "pin_memory": False}}
PINNED = {"offload_optimizer": {"device": "cpu", "pin_memory": True}}
NVME = {"offload_optimizer": {"device": "nvme", "nvme_path": "/nvme", "pin_memory": True}}
ONE_OWNER = {"use_multi_rank_bucket_allreduce": False}
IN_FP32 = {"data_types": {"grad_accum_dtype": "fp32"}}
TWICE = {"gradient_accumulation_steps": 2}
MUON = {
    "optimizer": {"type": "Muon", "params": {"lr": 1e-4}},
    "zero_allow_untested_optimizer": True,
    "zero_force_ds_cpu_optimizer": False,
}
JOBS = {  # stage, ranks, zero_optimization, other keys
    "own gradients stay one by one": (2, 3, {**LOOSE, **SMALL}, {}),
    "all are made flat": (2, 3, LOOSE, TWICE),
    "others' go late": (2, 3, {**LOOSE, **MEDIUM, "overlap_comm": True}, IN_FP32),
    "a copy of no bucket": (1, 3, {**LOOSE, "overlap_comm": True}, IN_FP32),
    "each group lets go of its own": (2, 3, {**LOOSE, **MEDIUM}, MUON),
    "one group of two in fp32": (2, 3, {"reduce_bucket_size": 2 * 10**7}, {**MUON, **IN_FP32}),
    "a bucket multiplied and cut": (3, 2, {**WHOLE, **MEDIUM, **HOST}, {}),
    "partitions filled up": (3, 5, {**WHOLE, **MEDIUM}, IN_FP32),
    "larger than the bucket": (3, 3, {**WHOLE, **SMALL, **HOST}, {}),
    "freed on the way to the host": (3, 3, {**LOOSE, **MEDIUM, **HOST}, {}),
    "flat in fp32 and not cast": (
        3,
        3,
        {**SMALL, **HOST},
        {**IN_FP32, "communication_data_type": "fp32"},
    ),
    "momentum comes with the first step": (2, 1, {**SMALL, **PINNED}, {**MUON, **TWICE}),
    "a step at init": (0, 2, {}, MUON),
    "owner by owner": (2, 3, {**ONE_OWNER, "reduce_bucket_size": 10**8}, IN_FP32),
    "divided before": (3, 5, {**WHOLE, **SMALL}, {"gradient_predivide_factor": 2.0}),
    "momentum on NVMe": (3, 2, {**WHOLE, **SMALL, **NVME}, MUON),
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Name -> the sizing, and the recording of the rank that it is about."""
    pytest.importorskip("transformers")
    model = tmp_path_factory.mktemp("llama") / "config.json"
    model.write_text(json.dumps(LLAMA))
    jobs = [
        read(
            {
                "bf16": {"enabled": True},
                "optimizer": {"type": "AdamW", "params": {"lr": 1e-4}},
                "zero_optimization": {"stage": stage, **zero},
                "train_micro_batch_size_per_gpu": 1,
                **more,
            },
            Flags(
                model=str(model.parent),
                seq_len=64,
                sequences="equal",
                gpus_per_node=1,
                nodes=ranks,
                gpu="a100-80gb",
                nvme="1TB",
                checkpointing=False,
                attention="flash",
            ),
        )
        for stage, ranks, zero, more in JOBS.values()
    ]
    sizings = [size(job) for job in jobs]
    asked = zip(JOBS.values(), jobs, sizings, strict=True)
    found = run_requests(
        [
            # what Muon gathers for the host is the most from the third step on
            request_of(job, rank=s.plan.rank, steps=3 if more.items() >= MUON.items() else 2)
            for (_, _, _, more), job, s in asked
        ]
    )
    return dict(zip(JOBS, zip(sizings, found, strict=True), strict=True))


@pytest.mark.parametrize("name", JOBS)
def test_every_phase_is_the_engines(answers, name):
    sizing, recording = answers[name]
    for device in (Device.GPU, Device.HOST):
        for phase in (Phase.INIT, Phase.FORWARD, Phase.BACKWARD, Phase.STEP):
            held = [p.device[device.value] for p in recording.first.phases if p.name == phase.value]
            highest = max(of["max_allocated"] for of in held)
            said = phase_peaks(sizing.moments[device])[phase]
            wrong = (device, phase, said, highest)
            assert said == pytest.approx(highest, rel=2e-4, abs=2**17), wrong
