"""DeepSpeed's ways of inference beside its engine, simulated: AutoTP, codes, a static cache."""

import inference_parity as benchmark
import pytest

from zero_sizer.dryrun.simulated import run_requests
from zero_sizer.dryrun.simulated.parent import request_of
from zero_sizer.dryrun.truncate import cut_job
from zero_sizer.hardware.device import Device
from zero_sizer.job.fields import Flags
from zero_sizer.job.read import without_config
from zero_sizer.models.changes.group_codes import KEY
from zero_sizer.sizing import size

LAYERS = 3
STATED = {"task": "inference", "attention": "sdpa", "precision": "bf16", "prompt": 300,
          "new_tokens": 3, "batch_size": 2}  # fmt: skip


def job(config=None, **flags):
    return cut_job(without_config(config or {}, Flags(**{**STATED, **flags})), LAYERS)


def errors(*jobs) -> list[float]:
    rows = list(benchmark.compare([(str(number), one) for number, one in enumerate(jobs)]))
    assert len({row.job for row in rows}) == len(jobs), "none is refused"
    gpu = [row for row in rows if "host" not in row.phase]
    return [abs(row.error) for row in gpu]


def test_a_rank_of_auto_tp():
    found = errors(
        job(model="llama-3-8b", tensor_parallel=4),
        job(model="llama-3.2-1b", tensor_parallel=2, attention="eager", new_tokens=0),
        job(model="qwen2.5-7b", tensor_parallel=4),
        job(model="gemma-2b", tensor_parallel=2, precision="fp32"),
        job(model="mixtral-8x7b", tensor_parallel=3, attention="flash"),
    )
    assert max(found) < 0.001


def test_heads_that_fill_the_width_bound_a_slices_activations():
    one = job(model="opt-6.7b", tensor_parallel=4)
    (row, *_) = [r for r in benchmark.compare([("opt", one)]) if r.phase == "prefill"]
    (finding,) = [f for f in size(one).findings if f.code == "activations-of-whole-layers"]
    assert row.predicted - finding.less_bytes < row.simulated <= row.predicted


def test_weights_in_deepspeeds_own_codes():
    def coded(bits, dimension, model, offload=None, **flags):
        how = {"num_bits": bits, "group_size": 64, "group_dim": dimension, "symmetric": False}
        zero = {"stage": 3, **({"offload_param": {"device": offload}} if offload else {})}
        values = {
            "zero_optimization": zero,
            "bf16": {"enabled": True},
            KEY.partition(".")[0]: {KEY.partition(".")[2]: how},
        }
        return job(values, model=model, gpus_per_node=2, zero_init=True, **flags)

    found = errors(
        coded(4, 1, "llama-2-7b"), coded(8, 0, "llama-2-7b"), coded(4, 1, "llama-3.2-1b", "cpu")
    )
    assert max(found) < 0.001


@pytest.mark.parametrize("flags", [
    {"attention": "flash"}, {"attention": "flash", "batch_size": 8, "prompt": 2000},
    {"attention": "sdpa"}, {"attention": "eager"},
])  # fmt: skip
def test_a_static_cache_lies_in_its_bounds(flags):
    one = job(model="llama-3.2-1b", cache="static", **flags)
    (found,) = run_requests([request_of(one, rank=0, steps=1)])
    phases = found.ranks[0].phases
    simulated = max(phase.device["gpu"]["max_allocated"] for phase in phases)
    answer = size(one)
    (bounds,) = [f for f in answer.findings if f.code == "static-cache-not-traced"]
    own = [a for a in answer.allocations if a.name == "cublas_workspace"]
    predicted = answer.peaks[Device.GPU].num_bytes - sum(a.num_bytes for a in own)
    low, high = predicted - bounds.less_bytes, predicted + bounds.num_bytes
    assert low <= simulated <= high * 1.001
    for phase in phases[1:]:
        assert phase.device["gpu"]["max_allocated"] <= high * 1.001
