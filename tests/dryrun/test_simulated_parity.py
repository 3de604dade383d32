"""The ledger against the simulated engine, over the jobs of ``benchmarks/parity.py``.

The benchmark draws hundreds and commits the errors; here a few are drawn each time. Model states
agree to the byte, the peaks of init and step within 1 %, those of forward and backward within 3 %.
"""

import parity
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from support.engine_parity import states_that_differ
from support.plans import make_job
from support.simulated_jobs import config_of

from zero_sizer import models
from zero_sizer.config import document
from zero_sizer.config.workload import Workload
from zero_sizer.crosscheck import compare
from zero_sizer.dryrun.simulated import parent
from zero_sizer.dryrun.truncate import cut_job
from zero_sizer.errors import ZeroSizerError
from zero_sizer.hardware.cluster import Cluster
from zero_sizer.job.read import Job

pytestmark = pytest.mark.slow

TOLERANCE = {"init": 0.01, "step": 0.01, "forward": 0.03, "backward": 0.03}


@st.composite
def jobs(draw):
    """One of the benchmark's jobs: model x stage x offload x precision x optimizer x ranks ..."""
    return parity.draw(lambda options: draw(st.sampled_from(options)))


@given(drawn=st.lists(jobs(), min_size=7, max_size=7, unique_by=lambda case: case.name))
@settings(
    max_examples=1,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_any_job_is_predicted(drawn):
    taken = 0
    for case, recording in zip(drawn, parity.run_batch(drawn), strict=True):
        if isinstance(recording, ZeroSizerError):
            continue  # DeepSpeed or the model refuses it
        taken += 1
        assert list(states_that_differ(case, recording.ranks[0])) == []
        for device, phase, predicted, simulated in parity.compare(case, recording):
            if simulated > 2**20:
                error = abs(predicted / simulated - 1)
                wrong = (case.name, device, phase, predicted, simulated)
                assert error <= TOLERANCE[phase], wrong
    assert taken >= len(drawn) // 2


@pytest.mark.parametrize(
    ("model", "layers", "seq_len"),
    [
        ("olmo-3-7b", 4, 6144),
        ("granite-4.0-1b", 2, 2048),
        ("glm-4-9b-0414", 2, 1024),
        ("starcoder2-3b", 2, 4608),  # longer than its window
    ],
)
def test_families_that_were_in_closed_form_without_checkpointing(model, layers, seq_len):
    """It was 27 % below the engine of the whole OLMo 3 at 4,096 tokens."""
    config = config_of({"stage": 3}, train_micro_batch_size_per_gpu=1)
    job = make_job(config, models.load(model), 8, seq_len=seq_len, checkpointing=False)
    job = cut_job(job, layers)
    (recording,) = parent.run_requests([parent.request_of(job, rank=0, steps=2)])
    rows = [row for row in compare.against_recording(job, recording).rows if row.device == "gpu"]
    predicted, witnessed = (
        max(of) for of in zip(*[(r.predicted, r.witnessed) for r in rows], strict=True)
    )
    assert predicted == pytest.approx(witnessed, rel=1e-4)


LARGE = {"reduce_bucket_size": 10**7, "overlap_comm": True}  # most gradients do not fit into it
HOST = {"offload_optimizer": {"device": "cpu"}}
ALL_ON_HOST = {**HOST, "offload_param": {"device": "cpu"}}
GREEDY = {"stage3_max_reuse_distance": 0, "stage3_param_persistence_threshold": 0}
ONE_BY_ONE = {**GREEDY, "stage3_prefetch_bucket_size": 0, "reduce_bucket_size": 10**7}
SMALL_ON_HOST = {"reduce_bucket_size": 10**8, **HOST}
HPZ = {"zero_hpz_partition_size": 2}
TORCHS = {"memory_efficient_linear": False}
FP32_SUMS = "bf16, accumulated in fp32"
HARD = {  # what: model, stage, ranks, precision, accumulation, checkpointing, zero_optimization
    "experts as a leaf": ("mixtral-8x7b", 3, 4, "bf16", 2, True, HOST),
    "experts, no leaf": ("mixtral-8x7b", 3, 8, "bf16", 1, False, {"leaf_module": {"classes": []}}),
    "named leaf": (
        "llama-3-8b",
        3,
        8,
        "bf16",
        1,
        True,
        {"leaf_module": {"name_suffixes": ["mlp"]}},
    ),
    "stage 1 frees its own": ("gpt-neox-20b", 1, 2, "fp16", 1, True, LARGE),
    "stage 1 on the host": ("gpt-neox-20b", 1, 1, "bf16", 1, True, {**LARGE, **HOST}),
    "stage 2 keeps its own": ("gpt-neox-20b", 2, 1, "bf16", 2, False, {**LARGE, **HOST}),
    "slices of a gradient": ("llama-3-8b", 2, 64, "bf16", 2, False, LARGE),
    "tied head in backward": ("qwen3-4b", 3, 4, "bf16", 1, True, {**GREEDY, **HOST}),
    "partitions brought": ("gemma-2-9b", 3, 2, "bf16", 1, False, ALL_ON_HOST),
    "gradients made together": ("gpt-neox-20b", 3, 1024, "fp32", 1, True, {**GREEDY, **HOST}),
    "copies of the embedding": ("t5-3b", 3, 4, "fp32", 1, False, ALL_ON_HOST),
    "one rank": ("mixtral-8x7b", 3, 1, "bf16", 1, True, HOST),
    "cast in the hook": ("llama-3-8b", 1, 8, FP32_SUMS, 2, True, HOST),
    "one buffer left": ("gpt2", 1, 8, FP32_SUMS, 1, True, {**HOST, "overlap_comm": True}),
    "own large ones stay": ("t5-3b", 2, 1, FP32_SUMS, 1, True, {"reduce_bucket_size": 10**7}),
    "partitions are cast": ("qwen3-4b", 3, 1, FP32_SUMS, 1, True, {**GREEDY, **ALL_ON_HOST}),
    "cast as they are sent": ("llama-3-8b", 1, 1, "torch_autocast", 1, True, SMALL_ON_HOST),
    "autocast keeps no casts": ("gpt2", 3, 4, "torch_autocast", 1, True, HOST),
    "gathered in 16 bits": ("llama-3-8b", 3, 64, "torch_autocast", 1, True, GREEDY),
    "scaled embedding is the head": (
        "gemma-2-9b",
        3,
        4,
        "torch_autocast",
        1,
        True,
        {**GREEDY, **ALL_ON_HOST},
    ),
    "flash under autocast": ("gemma-2-9b", 0, 2, "torch_autocast", 1, False, {}),
    "recomputed weights stay": ("llama-2-7b", 3, 64, "bf16", 1, True, ONE_BY_ONE),
    "a bias after its weight": ("gpt-neox-20b", 3, 64, "bf16", 1, True, ONE_BY_ONE),
    "hpZ cuts what is released": ("llama-3-8b", 3, 4, "bf16", 1, True, {**ONE_BY_ONE, **HPZ}),
    "hpZ of earlier micro steps": ("gpt-neox-20b", 3, 8, "fp16", 2, False, {**GREEDY, **HPZ}),
    "hpZ on the host": ("llama-3-8b", 3, 4, "bf16", 1, False, {**ONE_BY_ONE, **ALL_ON_HOST, **HPZ}),
    "hpZ over one rank": ("gpt2", 3, 1, "bf16", 1, True, {"reduce_bucket_size": 10**6, **HPZ}),
    "hpZ of what is built already": ("llama-3-8b", 3, 2, "bf16", 1, True, {**LARGE, **HOST, **HPZ}),
    "torch's linear saves views": ("qwen3-4b", 3, 4, "bf16", 1, False, {**ONE_BY_ONE, **TORCHS}),
    "views of recomputation": ("gpt-neox-20b", 3, 4, "bf16", 1, True, {**ONE_BY_ONE, **TORCHS}),
    "torch's linear saves casts": (
        "gpt-neox-20b",
        3,
        4,
        "torch_autocast",
        1,
        True,
        {**ONE_BY_ONE, **TORCHS},
    ),
    "large ones stay": ("gpt-neox-20b", 2, 1, FP32_SUMS, 2, True, {**LARGE, **HOST}),
}


def hard_case(name):
    model, stage, ranks, precision, accumulation, checkpointing, zero = HARD[name]
    config = {
        "train_micro_batch_size_per_gpu": 2,
        "gradient_accumulation_steps": accumulation,
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-4}},
        "zero_optimization": {"stage": stage, **zero},
        **({precision: {"enabled": True}} if precision != "fp32" else {}),
    }
    if precision == FP32_SUMS:
        config |= {"bf16": config.pop(precision), "data_types": {"grad_accum_dtype": "fp32"}}
    if precision == "torch_autocast":
        config[precision]["dtype"] = "bfloat16"
    attention = "eager" if model == "t5-3b" else "flash"
    workload = Workload(
        seq_len=512,
        checkpointing=checkpointing,
        attention=attention,
        zero_init=stage == 3 and "built already" not in name,
    )
    job = Job(
        document=document.from_mapping(config),
        model=models.load(model),
        cluster=Cluster(nodes=max(ranks // 8, 1), gpus_per_node=min(ranks, 8), origins={}),
        workload=workload,
        origins={},
    )
    return parity.Case(name, cut_job(job, 4))


@pytest.mark.parametrize("part", range(3))  # each within the time a test has, on a busy machine
def test_what_was_hard_to_predict_stays_predicted(part):
    cases = [hard_case(name) for name in list(HARD)[part::3]]
    for case, recording in zip(cases, parity.run_batch(cases), strict=True):
        assert not isinstance(recording, ZeroSizerError), (case.name, recording)
        for device, phase, predicted, simulated in parity.compare(case, recording):
            if simulated > 2**20:
                wrong = (case.name, device, phase, predicted / simulated - 1)
                assert abs(predicted / simulated - 1) <= 0.01, wrong
