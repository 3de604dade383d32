"""Kernels a GPU would choose, and stand-ins for those that need one: the buffers they make."""

from collections import Counter
from dataclasses import replace

import pytest
from support.simulated_jobs import HOST, TINY_LLAMA, config_of, job_for, request_for, tiny_llama

from zero_sizer.crosscheck.compare import peak_rows
from zero_sizer.dryrun.recording import from_json
from zero_sizer.dryrun.simulated import parent
from zero_sizer.sizing import size

pytestmark = pytest.mark.slow

WIDE = {**TINY_LLAMA, "hidden_size": 256, "intermediate_size": 640, "vocab_size": 2048}
RANKS = 16


def _optimizer(name, **params):
    return {"type": name, "params": {"lr": 1e-4, **params}}


# Name: optimizer, state tensors, and temporaries of torch's foreach kernels (torch/optim/*.py);
# each as large as the partition, in fp32.
OPTIMIZERS = {
    "FusedAdam": (_optimizer("AdamW"), 2, 0),
    "AdamW": (_optimizer("AdamW", torch_adam=True, weight_decay=0.1), 2, 1),  # the denominator
    "RMSprop": (_optimizer("RMSprop"), 1, 1),
    "RMSprop, decayed": (_optimizer("RMSprop", weight_decay=0.1), 1, 2),  # and the gradient
    "SGD": (_optimizer("SGD", momentum=0.9), 1, 0),
}


OPTIONS = {  # where the ledger adds states or temporaries for an option, or for the host
    "amsgrad": ({"stage": 1}, _optimizer("AdamW", torch_adam=True, amsgrad=True)),
    "decayed SGD, no ZeRO": ({"stage": 0}, _optimizer("SGD", weight_decay=0.1)),
    "Adagrad, no ZeRO": ({"stage": 0}, _optimizer("Adagrad")),
    "RMSprop with all": (
        {"stage": 1},
        _optimizer("RMSprop", weight_decay=0.1, momentum=0.9, centered=True),
    ),
    "AdamW on the host": (
        {"stage": 2, "offload_optimizer": HOST},
        _optimizer("AdamW", torch_adam=True),
    ),
}


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    """Name of an option -> its job on two ranks."""
    spec = tiny_llama(tmp_path_factory.mktemp("model"), **WIDE)
    more = {"zero_allow_untested_optimizer": True, "zero_force_ds_cpu_optimizer": False}
    return {
        name: job_for(
            config_of({**zero, "reduce_bucket_size": 20_000}, optimizer=optimizer, **more), spec, 2
        )
        for name, (zero, optimizer) in OPTIONS.items()
    }


@pytest.fixture(scope="module")
def answers(jobs):
    """Name -> a run, or its error; with its events where it is not an option's."""
    small = {"reduce_bucket_size": 20_000}
    more = {"zero_allow_untested_optimizer": True}
    requests = {
        name: request_for({"stage": 1, **small}, hf_config=WIDE, keep_events=True, config=config)
        for name, config in (
            (name, {"optimizer": optimizer, **more}) for name, (optimizer, *_) in OPTIMIZERS.items()
        )
    }
    for feature in ("weights", "gradients"):
        zero = {"stage": 3, **small, f"zero_quantized_{feature}": True}
        request = request_for(zero, ranks=RANKS, hf_config=WIDE, keep_events=True)
        requests[feature] = request
        requests[f"small {feature}"] = replace(request, hf_config=TINY_LLAMA)
    for overlaps in (True, False):  # two side streams: gathering, and reduction
        zero = {"stage": 3, **small, "overlap_comm": overlaps}
        requests[f"overlap {overlaps}"] = request_for(zero, ranks=2, keep_events=True)
    requests |= {name: parent.request_of(job, rank=0, steps=2) for name, job in jobs.items()}
    return dict(zip(requests, parent.answers(list(requests.values())), strict=True))


def _allocated(answer, phase):
    """How often each size was allocated on the GPU in the phase."""
    return Counter(
        num_bytes
        for kind, _, num_bytes, _, device, during, _ in answer["events"]
        if (kind, device, during) == ("alloc", "gpu", phase)
    )


def test_torchs_optimizers_take_the_multi_tensor_kernels_that_a_gpu_takes(answers):
    first = answers["FusedAdam"]["phases"][0]["live"]
    (partition,) = (row["num_bytes"] for row in first if row["category"] == "master_weights")
    count = {name: _allocated(answers[name], "step")[partition] for name in OPTIMIZERS}
    others = count["FusedAdam"] - 2  # the gradient's copies of both steps
    expected = {
        name: others + states + 2 * temporaries  # states once, temporaries in both steps
        for name, (_, states, temporaries) in OPTIMIZERS.items()
    }
    assert count == expected


def test_quantized_gathers_hold_int8_and_fp16_and_their_scales(answers):
    numel = 256 * 640  # a projection of the MLP, gathered by itself
    forward = _allocated(answers["weights"], "forward")
    assert forward[numel] > 0  # int8
    assert forward[2 * numel] > 0  # dequantized to fp16
    groups = 2  # a partition of 10240 elements in groups below 8000
    assert forward[4 * groups * RANKS] > 0  # a float32 scale for each group of each rank


def test_quantized_gradients_are_reduced_in_two_hops_of_int4(answers):
    numel = 256 * 640
    backward = _allocated(answers["gradients"], "backward")
    assert backward[numel // 2] >= 2  # packed two to a byte: sent, and received
    assert backward[numel // 2 // 8] >= 2  # reduced over the node's 8 ranks: sent, and received
    assert backward[2 * numel // 8] >= 1  # what came from the other nodes, in fp16


def test_deepspeed_refuses_partitions_that_its_quantizer_cannot_group(answers):
    assert "multiple of 8" in answers["small weights"]["error"]["message"]
    assert "error" not in answers["small gradients"]  # falls back tensor by tensor


def test_the_ledgers_step_is_the_engines_for_torchs_optimizers(jobs, answers):
    for name, job in jobs.items():
        run = from_json(answers[name])
        device = "host" if "host" in name else "gpu"
        (row,) = (
            row
            for row in peak_rows(size(job).plan, run.first, "simulated")
            if (row.device, row.phase) == (device, "step")
        )
        assert abs(row.error) < 0.001, (name, row.predicted, row.witnessed)


def test_what_a_side_stream_allocates_is_told_apart(answers):
    """Gathers and reductions run beside the model where overlap_comm asks for it.

    stage3.py:340, parameter_offload.py:195; a block serves requests of its own stream alone.
    """
    streams = {
        overlaps: {
            (event[2], event[3])
            for event in answers[f"overlap {overlaps}"]["events"]
            if event[0] == "alloc" and event[5] == "backward"
        }
        for overlaps in (True, False)
    }
    assert {stream for _, stream in streams[False]} == {0}
    assert {stream for _, stream in streams[True]} == {0, 1, 2}
    assert {size for size, _ in streams[True]} == {size for size, _ in streams[False]}
