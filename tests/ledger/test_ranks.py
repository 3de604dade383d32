"""The rank that needs most: against every rank of the ledger, and of the simulated engine."""

import random
from dataclasses import replace
from itertools import islice

import parity
import pytest
from support.advise_jobs import job_on
from support.simulated_jobs import config_of, job_for, tiny_llama

from zero_sizer import models
from zero_sizer.advise.choose import Options, search_of
from zero_sizer.advise.ladder import settings_of
from zero_sizer.config import document
from zero_sizer.config.workload import Workload
from zero_sizer.dryrun.truncate import cut_job
from zero_sizer.errors import ZeroSizerError
from zero_sizer.hardware.cluster import Cluster
from zero_sizer.hardware.device import Device
from zero_sizer.job.read import Job
from zero_sizer.ledger import entries
from zero_sizer.ledger.entry import evaluate
from zero_sizer.ledger.moments import STEPPING, Moment
from zero_sizer.ledger.peak import peak_of, phase_peaks, totals
from zero_sizer.ledger.ranks import at_highest_rank, highest_of
from zero_sizer.sizing import size
from zero_sizer.units import DType

HARD = (  # what is freed late; what waits for the next; a partition's gradients that come early
    "3/14/states",
    "3/21/states",
    "7/764/buckets",
    "9/75/buckets",
    "9/499/states",
    "10/120/buckets",
    "14/786/states",
)
GPU = Device.GPU
ALIKE = 0.002  # ranks that differ by a thousandth of the weights are not told apart


def peak(plan, device=Device.GPU):
    allocations = evaluate(entries.ENTRIES, plan, explain=False)
    return peak_of(totals(allocations, plan.ranks_per_node)[device]).num_bytes


def odd(plan, draw):
    """The same plan with keys that ``choose`` leaves alone."""
    return replace(
        plan,
        overlap_comm=draw.random() < 0.5,
        round_robin=draw.random() < 0.3,
        contiguous_gradients=draw.random() < 0.8,
        align_tensors=draw.random() < 0.2,
        reduce_bucket_size=draw.choice((10**6, 10**7, 10**8)),
        grad_accum_dtype=draw.choice((plan.model_dtype, plan.model_dtype, DType.FP32)),
    )


def drawn(model, count, seed):
    """Plans at ZeRO-1 and ZeRO-2, on few and on many ranks."""
    draw = random.Random(seed)
    search = search_of(job_on(model, "h100-80gb", seq_len=256), Options())
    unlike = [s for s in search.strategies if s.name.startswith(("ZeRO-1", "ZeRO-2"))]
    for _ in range(count):
        strategy = draw.choice(unlike)
        values = search.sweep.values(
            strategy.name,
            dp_world_size=draw.choice((2, 3, 4, 6, 8, 12, 16, 40, 64)),
            micro_batch=draw.choice((1, 4)),
            grad_accum=draw.choice((1, 1, 4)),
            checkpointing=draw.random() < 0.5,
            **draw.choice(settings_of(strategy)).values,
        )
        yield odd(search.sweep.plan(values), draw)


@pytest.mark.parametrize(
    ("model", "count"),
    [
        ("gpt2", 8),
        pytest.param("qwen2.5-0.5b", 25, marks=pytest.mark.slow),
        pytest.param("t5-3b", 25, marks=pytest.mark.slow),
    ],
)
def test_no_rank_needs_more(model, count):
    for plan in drawn(model, count, seed=3):
        most = max(peak(plan.at_rank(rank)) for rank in range(plan.dp_world_size))
        found = at_highest_rank(plan)
        assert peak(found) <= most
        assert peak(found) >= most * (1 - ALIKE), (plan, found.rank)


def unlike(jobs):
    """Plans of jobs of which ranks differ."""
    for job in jobs:
        ranks, stage = job.cluster.world_size, job.document.get("zero_optimization.stage")
        if ranks > 2 and stage in (1, 2):
            yield size(job).plan


@pytest.mark.parametrize(
    "count",
    [
        pytest.param(0, id="that were hard"),
        40,
        pytest.param(100, marks=pytest.mark.slow),
    ],
)
def test_no_rank_of_a_drawn_job_needs_more(count):
    """Of any precision, bucket and offload; small worlds leave nothing out."""
    drawn = (case.job for case in parity.cases(7, ["plain", "buckets", "states", "optimizer"]))
    hard = (parity.case_of(identity).job for identity in HARD)
    for plan in islice(unlike(drawn), count) if count else unlike(hard):
        most = max(peak(plan.at_rank(rank)) for rank in range(plan.dp_world_size))
        assert peak(at_highest_rank(plan)) >= most * (1 - ALIKE), plan


@pytest.mark.parametrize("model", ["gpt2", pytest.param("qwen2.5-0.5b", marks=pytest.mark.slow)])
def test_of_each_phase_the_rank_that_holds_more_is_named(model):
    """Beside the rank that needs most over the run, whose phases are shown."""
    higher = 0
    for plan in drawn(model, 12, seed=5):
        of_rank = [
            phase_peaks(totals(evaluate(entries.ENTRIES, p, explain=False), p.ranks_per_node)[GPU])
            for p in map(plan.at_rank, range(plan.dp_world_size))
        ]
        found = highest_of(plan)
        for phase, said in of_rank[found.plan.rank].items():
            most = max(phases[phase] for phases in of_rank)
            if phase in found.higher:
                rank, num_bytes = found.higher[phase]
                assert said < num_bytes == of_rank[rank][phase]
                said, higher = num_bytes, higher + 1
            assert most * (1 - ALIKE) <= said <= most, (plan, phase)
    assert higher


def test_another_rank_shares_nothing_that_depends_on_it():
    for plan in drawn("gpt2", 20, seed=4):
        peak(plan)  # fills what the plan keeps
        rank = plan.dp_world_size - 1
        assert evaluate(entries.ENTRIES, plan.at_rank(rank)) == evaluate(
            entries.ENTRIES, replace(plan, rank=rank)
        )


def test_a_host_holds_what_all_its_ranks_do():
    """Accumulated gradients on the host: whole tensors, more on ranks at the cuts."""
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 2,
        "bf16": {"enabled": True},
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-4}},
        "zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}},
    }
    plan = size(_job("gpt2", config, ranks=12, per_node=4)).plan
    each = [peak(replace(plan.at_rank(r), ranks_per_node=1), Device.HOST) for r in range(12)]
    assert len(set(each)) == 1  # the fullest rank is meant where a node has one
    own = [
        sum(
            a.num_bytes + a.rounding_bytes
            for a in evaluate(entries.ENTRIES, plan.at_rank(rank), explain=False)
            if a.name == "accumulated_grads_in_cpu"
        )
        for rank in range(12)
    ]
    nodes = [sum(own[first : first + 4]) for first in (0, 4, 8)]
    (found,) = (
        a.node_bytes
        for a in evaluate(entries.ENTRIES, plan, explain=False)
        if a.name == "accumulated_grads_in_cpu"
    )
    assert found == max(nodes) > 4 * min(own)


# --- against the engine -------------------------------------------------------------------------

MODELS = {"llama-3.2-1b": 4, "gpt2": 6, "qwen2.5-0.5b": 4, "t5-3b": 4, "llama-3-8b": 4}


def _job(model, config, *, ranks, per_node, layers=None, **workload):
    job = Job(
        document=document.from_mapping(config),
        model=models.load(model),
        cluster=Cluster(nodes=ranks // per_node, gpus_per_node=per_node, origins={}),
        workload=Workload(**{"seq_len": 256, "checkpointing": True, **workload}),
        origins={},
    )
    return cut_job(job, layers)


def case(choose):
    """A job at stage 1 or 2 of which ranks differ."""
    model = choose(list(MODELS))
    ranks = choose((2, 3, 4, 6, 8))
    zero = {
        "stage": choose((1, 2)),
        "reduce_bucket_size": choose((10**7, 10**8, 2 * 10**8, 5 * 10**8)),
        "overlap_comm": choose((False, True)),
        "round_robin_gradients": choose((False, False, True)),
    }
    if choose((False, False, True)):
        zero["offload_optimizer"] = {"device": "cpu"}
    optimizer = choose(("AdamW", "AdamW", "Lion", "Muon"))
    if optimizer == "Muon":
        zero["reduce_scatter"] = False
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": choose((1, 2)),
        "optimizer": {"type": optimizer, "params": {"lr": 1e-4}},
        "zero_optimization": zero,
    }
    precision = choose(("bf16", "bf16", "autocast", "fp32"))
    if precision == "autocast":
        config["torch_autocast"] = {"enabled": True, "dtype": "bfloat16"}
    elif precision == "bf16":
        config["bf16"] = {"enabled": True}
        if choose((False, True)):
            config["data_types"] = {"grad_accum_dtype": "fp32"}
    attention = "eager" if model == "t5-3b" else "flash"
    workload = {"attention": attention, "checkpointing": choose((False, True))}
    per_node = ranks // 2 if ranks % 2 == 0 else ranks
    return _job(model, config, ranks=ranks, per_node=per_node, layers=MODELS[model], **workload)


def simulated(recordings, device):
    """Each rank's highest instant; of a device that is shared, at the same phase of all."""
    runs = [
        {
            (p.name, p.step, p.micro_step): p.device[device].get("max_allocated", 0)
            for p in recording.ranks[0].phases
        }
        for recording in recordings
    ]
    return [[run[key] for run in runs] for key in runs[0]]


@pytest.mark.slow
def test_another_rank_holds_as_much_more_in_the_step_as_is_told():
    """Beside the rank whose peak, in backward, is the highest of all."""
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "bf16": {"enabled": True},
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-4}},
        "zero_optimization": {"stage": 1, "reduce_bucket_size": 10**7},
    }
    job = _job("gpt2", config, ranks=3, per_node=3, layers=4, attention="sdpa")
    sizing = size(job)
    (phase,) = sizing.higher
    higher = sizing.higher[phase]
    ranks = (sizing.plan.rank, higher.rank)
    runs = parity.run_requests([parity.request_of(job, rank=rank, steps=2) for rank in ranks])
    own, others = (
        max(p.device["gpu"]["max_allocated"] for p in run.first.phases if p.name == phase.value)
        for run in runs
    )
    (not_simulated,) = (
        a.num_bytes for a in sizing.allocations if a.name == "cublas_workspace"
    )  # without a named GPU
    said = phase_peaks(sizing.moments[GPU])[phase]
    assert said - not_simulated == pytest.approx(own, rel=1e-4)
    assert higher.num_bytes - not_simulated == pytest.approx(others, rel=1e-4)
    assert others > 1.04 * own


@pytest.mark.slow
def test_only_muons_gradients_add_up_on_the_host_in_fp32(tmp_path):
    """The others' do in a buffer on the GPU."""
    config = config_of(
        {"stage": 2, "reduce_scatter": False, "offload_optimizer": {"device": "cpu"}},
        optimizer={"type": "Muon", "params": {"lr": 1e-4}},
        gradient_accumulation_steps=2,
        data_types={"grad_accum_dtype": "fp32"},
    )
    job = job_for(config, tiny_llama(tmp_path, hidden_size=128, vocab_size=4000), 4)
    recordings = parity.run_requests(
        [parity.request_of(job, rank=rank, steps=3) for rank in range(4)]
    )
    last = simulated(recordings, "host")[-1]
    found = totals(size(job).allocations, 4)[Device.HOST][Moment.UPDATE]
    assert abs(found / sum(last) - 1) < 0.001


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_the_rank_that_needs_most_is_the_engines(seed):
    draw = random.Random(seed)
    taken = 0
    for _ in range(2):
        job = case(draw.choice)
        ranks, per_node = job.cluster.world_size, job.cluster.gpus_per_node
        # Muon's momentum is staged from the second step on
        steps = 3 if job.document.get("optimizer.type") == "Muon" else 2
        recordings = parity.run_requests(
            [parity.request_of(job, rank=rank, steps=steps) for rank in range(ranks)]
        )
        if any(isinstance(found, ZeroSizerError) for found in recordings):
            continue  # DeepSpeed refuses it
        taken += 1
        found = size(job)
        allocations = [a for a in found.allocations if a.name not in parity.NOT_SIMULATED]
        moments = {
            device: {moment: size for moment, size in found.items() if moment.phase in STEPPING}
            for device, found in totals(allocations, per_node).items()
        }  # the engine saves nothing here
        predicted = peak_of(moments[Device.GPU]).num_bytes
        highest = max(map(max, simulated(recordings, "gpu")))
        assert -0.005 <= predicted / highest - 1 <= 0.01, (job.document.values, job.model.name)
        on_node = max(
            sum(of_phase[first : first + per_node])
            for of_phase in simulated(recordings, "host")
            for first in range(0, ranks, per_node)
        )
        if on_node > 2**20:
            error = peak_of(moments[Device.HOST]).num_bytes / on_node - 1
            assert -0.005 <= error <= 0.01, (job.document.values, job.model.name)
    assert taken
