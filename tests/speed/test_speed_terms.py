"""Terms of the step time against the papers' formulas, and what must hold of any such model."""

import json
from dataclasses import replace
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from repository.test_house import ROOT
from support.advise_jobs import job_on

from zero_sizer import models, sizing, speed
from zero_sizer.config import document
from zero_sizer.config.workload import REENTRANT, Checkpointing
from zero_sizer.hardware import catalog
from zero_sizer.hardware.cluster import Cluster
from zero_sizer.hardware.device import Device
from zero_sizer.job import read
from zero_sizer.job.fields import Flags
from zero_sizer.plan import sizes
from zero_sizer.speed import Case, step_time
from zero_sizer.speed.model import seconds_of, step_of
from zero_sizer.speed.rates import Protocol, by_prefix, peak_flops, rates_of, table
from zero_sizer.speed.step import Kind
from zero_sizer.speed.terms import TERMS
from zero_sizer.speed.work import gathers, work_of
from zero_sizer.units import DType

CLUSTER = Cluster(nodes=4, gpus_per_node=8, gpu=catalog.find("a100-80gb"), origins={})


ADAMW = {"type": "AdamW", "params": {"lr": 1e-4}}


def plan_of(stage=3, model="llama-2-7b", nodes=4, zero=None, optimizer=ADAMW, **workload):
    config = {
        "bf16": {"enabled": True},
        "optimizer": optimizer,
        "zero_optimization": {"stage": stage, **(zero or {})},
        "train_micro_batch_size_per_gpu": workload.pop("micro_batch", 1),
        "gradient_accumulation_steps": workload.pop("grad_accum", 1),
    }
    wanted = job_on(model, "a100-80gb", nodes=nodes, checkpointing=False, **workload)
    return sizing.size(replace(wanted, document=document.from_mapping(config))).plan


def seconds(plan, cluster=CLUSTER, case=Case.EXPECTED):
    return {part.term.name: part.seconds for part in step_time(plan, cluster, case).parts}


@pytest.mark.parametrize("name", ["llama-2-7b", "llama-3-8b", "opt-13b", "bloom-7b1"])
def test_one_pass_is_two_flops_a_parameter_that_multiplies(name):
    """6 N a token in three passes (arXiv:2001.08361, 2.1), embeddings looked up, a head counted."""
    spec = models.load(name)
    work = work_of(spec)
    vectors = sum(t.numel for t in spec.parameters if len(t.shape) < 2)
    lookups = sum(t.numel for t in spec.parameters if "Embedding" in t.module_type)
    head = spec.arch.vocab * spec.arch.hidden if spec.arch.tied_embeddings else 0
    expected = 2 * (spec.num_params - vectors - lookups + head)
    assert work.block_flops + work.head_flops == expected


def test_experts_are_counted_as_often_as_they_are_routed_to():
    """Mixtral 8x7B: 12.9e9 of 46.7e9 parameters are active (arXiv:2401.04088)."""
    work = work_of(models.load("mixtral-8x7b"))
    assert (work.block_flops + work.head_flops) / 2 == pytest.approx(12.9e9, rel=0.02)


def test_attention_is_the_published_count():
    """12 L h s a token forward and backward over the whole square (arXiv:2205.05198, appendix A).

    A fused causal kernel computes half of it, and the scores again: 3.5/3 (arXiv:2307.08691).
    """
    spec = models.load("llama-2-7b")
    work = work_of(spec)
    assert 3 * work.attention_flops == 12 * spec.arch.num_layers * spec.arch.hidden
    assert work.attention_share == 0.5
    assert work_of(models.load("bert-base")).attention_share == 1.0


def ring(step, num_bytes):
    """Seconds of one all-gather without latency."""
    ranks, nodes = step.plan.dp_world_size, step.nodes
    inside = num_bytes * (ranks - 1) / ranks / step.rates.node_link
    return max(inside, num_bytes * (nodes - 1) / nodes / step.rates.network)


@pytest.mark.parametrize(
    ("num_bytes", "name"), [(10**3, "LL"), (10**8, "LL128"), (10**10, "Simple")]
)
def test_a_collective_takes_nccls_fastest_protocol(num_bytes, name):
    """NCCL's src/graph/tuning.cc: a start, a hop a rank, the links' rate times a share."""
    step = step_of(replace(plan_of(3), dp_world_size=512), CLUSTER)
    step = replace(step, nodes=64)
    row = {row["name"]: row for row in table()["protocols"]["rows"]}[name]
    hops = row["base_us"] + 448 * row["nvlink_us"] + 63 * row["network_us"]
    transfer = max(
        ring(step, num_bytes) / row["share"], num_bytes / (row.get("most_gb_per_s", inf) * 1e9)
    )
    assert step.gather_seconds(num_bytes, 1) == pytest.approx(hops * 1e-6 + transfer)
    assert step.gather_seconds(num_bytes, 3) > step.gather_seconds(num_bytes, 1)


def test_gathers_bring_whole_weights():
    """fetch_sub_module prefetches weights until the bucket is full; a larger weight comes alone."""
    spec = models.load("llama-2-70b")
    matrices = sum(len(t.shape) == 2 for t in spec.parameters)
    assert gathers(spec, 1) == len(spec.numels)
    assert matrices * 0.8 < gathers(spec, 10**7) <= matrices + 2
    assert gathers(spec, spec.num_params) == 1
    assert gathers(spec, 10**9) == pytest.approx(spec.num_params / 10**9, rel=0.2)


def test_fused_kernels_save_the_eager_ones_traffic():
    plan = plan_of(3)
    work, step = work_of(plan.model), step_of(plan, CLUSTER)
    eager, fused = (seconds(replace(plan, kernels=k))["elementwise"] for k in (None, "liger"))
    saved = work.eager_forward + work.eager_backward
    assert eager - fused == pytest.approx(step.tokens * saved * 2 / step.rates.memory)
    # two norms of 16 and 37 elements each, queries and keys of 8 and 13 (LlamaRMSNorm)
    assert saved == 32 * 4096 * (2 * (16 + 37) + 2 * (8 + 13))


@pytest.mark.parametrize(("stage", "volumes"), [(0, 2), (1, 3), (2, 3), (3, 3)])
def test_volumes_are_those_of_the_zero_paper(stage, volumes):
    """arXiv:1910.02054, 7: 2 Psi for data parallelism, 3 Psi at stage 3.

    The paper's 2 Psi at stages 1 and 2 take a reduce-scatter; DeepSpeed all-reduces there.
    """
    plan = plan_of(stage, zero={"stage3_max_reuse_distance": 0} if stage == 3 else None)
    step = step_of(plan, CLUSTER)
    at_once = Protocol(base=0.0, hop=0.0, network_hop=0.0, share=1.0, most=inf)
    free = replace(step, rates=replace(step.rates, protocols=(at_once,)))
    found = sum(
        term.seconds(free) for term in TERMS if term.kind is Kind.COMMUNICATION and term.when(free)
    )
    assert found == pytest.approx(volumes * ring(step, 2 * sizes.num_trainable(plan)), rel=1e-6)


def test_hpz_gathers_for_backward_inside_the_node():
    """arXiv:2306.10209, 3.2: the network carries nothing, so its rate does not matter."""
    plan = plan_of(3, zero={"zero_hpz_partition_size": 8})
    slow = replace(CLUSTER, rates={"inter_node_gb_per_s": 0.5})
    before, after = seconds(plan), seconds(plan, slow)
    assert after["gather_for_backward"] == before["gather_for_backward"]
    assert after["gather_for_forward"] > 10 * before["gather_for_forward"]


def test_accumulation_reduces_once_below_stage_2():
    for stage, times in ((0, 1), (1, 1)):
        one, four = (seconds(plan_of(stage, grad_accum=n)) for n in (1, 4))
        assert four["all_reduce"] == pytest.approx(times * one["all_reduce"])
    one, four = (seconds(plan_of(2, grad_accum=n)) for n in (1, 4))
    name = "all_reduce_every_micro_step"
    assert four[name] == pytest.approx(4 * one[name])


def test_one_rank_says_nothing_to_anybody():
    plan = plan_of(3, nodes=1)
    alone = replace(plan, dp_world_size=1, ranks_per_node=1)
    kinds = {part.term.kind for part in step_time(alone, CLUSTER).parts}
    assert Kind.COMMUNICATION not in kinds


def test_recomputation_is_one_more_forward_of_the_blocks():
    """Less the products that end blocks, where torch's own checkpoint stops early."""
    plan = plan_of(3)
    whole = Checkpointing(by=REENTRANT)
    plain, again, early = (
        seconds(p)["matrix_products"]
        for p in (
            plan,
            replace(plan, checkpointing=True, checkpointing_how=whole),
            replace(plan, checkpointing=True),
        )
    )
    work = work_of(plan.model)
    pass_flops = work.block_flops + work.head_flops
    assert again / plain - 1 == pytest.approx(work.block_flops / pass_flops / 3)
    assert early / plain - 1 == pytest.approx((work.block_flops - work.last_flops) / pass_flops / 3)


@pytest.mark.slow
def test_a_sweep_has_the_seconds_that_a_report_has():
    for plan in (plan_of(3), plan_of(2, zero={"overlap_comm": True}), plan_of(1, grad_accum=3)):
        assert seconds_of(step_of(plan, CLUSTER)) == step_time(plan, CLUSTER).seconds


def test_frozen_weights_have_no_gradient_product():
    spec = models.load("gpt2")
    frozen = replace(spec, parameters=tuple(replace(t, trainable=False) for t in spec.parameters))
    assert work_of(spec).frozen_share == 0
    assert work_of(frozen).frozen_share == pytest.approx(1)


@given(
    st.integers(0, 3),
    st.sampled_from([1, 2, 16]),
    st.booleans(),
    st.sampled_from(["flash", "eager"]),
    st.sampled_from(["a100-80gb", "h100-80gb", "v100-32gb", "mi300x", "rtx-4090"]),
)
def test_the_interval_is_an_interval(stage, micro_batch, checkpointing, attention, gpu):
    plan = replace(
        _plan(stage), micro_batch=micro_batch, checkpointing=checkpointing, attention=attention
    )
    cluster = replace(CLUSTER, gpu=catalog.find(gpu))
    low, expected, high = (step_time(plan, cluster, case) for case in Case)
    assert 0 < low.seconds <= expected.seconds <= high.seconds
    for part in expected.parts:
        assert 0 <= part.visible_seconds <= part.seconds * (1 + 1e-12)
    work = work_of(plan.model)
    flops = 3 * (work.block_flops + work.head_flops) * micro_batch * plan.seq_len
    assert low.seconds > flops / peak_flops(cluster.gpu, plan.model_dtype)


_PLANS = {}


def _plan(stage):
    if stage not in _PLANS:
        _PLANS[stage] = plan_of(stage)
    return _PLANS[stage]


@given(st.integers(0, 3), st.floats(1, 1e4), st.floats(1, 100))
def test_a_faster_network_never_slows_a_step(stage, rate, times):
    slow, fast = (replace(CLUSTER, rates={"inter_node_gb_per_s": r}) for r in (rate, rate * times))
    plan = _plan(stage)
    assert step_time(plan, fast).seconds <= step_time(plan, slow).seconds * (1 + 1e-9)


def test_overlap_hides_communication_only_where_the_config_asks():
    plan = plan_of(2, zero={"overlap_comm": True})
    hidden = step_time(plan, CLUSTER).seconds
    assert hidden < step_time(replace(plan, overlap_comm=False), CLUSTER).seconds


@pytest.mark.parametrize("device", [Device.HOST, Device.NVME])
def test_offload_costs_time(device):
    plan = plan_of(3)
    name = {Device.HOST: "cpu", Device.NVME: "nvme"}[device]
    offloaded = plan_of(3, zero={"offload_optimizer": {"device": name, "nvme_path": "/x"}})
    found = seconds(offloaded)
    assert step_time(offloaded, CLUSTER).seconds > step_time(plan, CLUSTER).seconds
    assert ("swap_optimizer" in found) == (device is Device.NVME)
    # Adam: 16 bytes a parameter read and 12 written, by 8 ranks that share a node's memory
    per_rank = (
        sizes.partition_numel(offloaded) * 28 / (step_of(plan, CLUSTER).rates.host_memory / 8)
    )
    assert found["host_update"] == pytest.approx(per_rank, rel=0.3)


def test_what_the_user_states_is_used_as_it_is():
    stated = {
        "matmul_tflops": 200.0,
        "attention_tflops": 250.0,
        "inter_node_gb_per_s": 50.0,
        "nvme_gb_per_s": 3.0,
    }
    for case in Case:
        rates = rates_of(replace(CLUSTER, rates=stated), DType.BF16, case)
        assert rates.matmul == 200e12
        assert rates.attention == 250e12
        assert rates.network == 50e9
        assert rates.nvme == 3e9


def test_a_job_file_states_rates_with_their_lines(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text("model: gpt2\ndeepspeed: {}\ncluster:\n  gpu: a100-80gb\n  pcie_gb_per_s: 20\n")
    cluster = read.read(str(path)).cluster
    rate = {r.name: r for r in speed.explain(cluster, DType.BF16)}["pcie_gb_per_s"]
    assert rate.values == (20, 20, 20)
    assert rate.origin == f"{path}:5"


def test_every_rate_names_its_sources():
    for rate in speed.explain(CLUSTER, DType.BF16):
        assert rate.origin
    sources = table()["sources"]
    for name, row in table().items():
        if isinstance(row, dict) and name != "sources":
            assert row["sources"]
            assert set(row["sources"]) <= set(sources), name


@pytest.mark.parametrize("row", ["matmul", "attention", "memory", "network", "host_memory", "nvme"])
def test_every_gpu_has_a_row(row):
    entry = table()[row]
    for gpu in catalog.all_gpus():
        assert by_prefix(entry.get("measured") or entry["gb_per_s"], gpu.name) > 0


def test_the_contracts_block():
    sized = sizing.size(job_on("opt-125m", "a10g-24gb", checkpointing=False, micro_batch=4))
    block = json.loads(json.dumps(speed.estimate(sized)))
    for name in ("step_seconds", "tokens_per_second_per_gpu"):
        assert block[name]["low"] < block[name]["expected"] < block[name]["high"]
    step, rate = block["step_seconds"], block["tokens_per_second_per_gpu"]
    assert step["expected"] * rate["expected"] == pytest.approx(4 * 2048)
    visible = sum(term["visible_seconds"] for term in block["terms"])
    assert visible == pytest.approx(step["expected"])


def test_without_a_gpu_nobody_can_say():
    wanted = read.without_config({}, Flags(model="gpt2", gpu_memory="24GiB"))
    assert speed.estimate(sizing.size(wanted)) is None


def test_the_documentation_names_every_stated_rate():
    from zero_sizer.hardware.assemble import RATES

    text = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    assert all(name in text for name in RATES)


def test_a_generation_of_flash_attention_has_its_published_rate():
    def rate(kernel, gpu="h100-80gb"):
        cluster = replace(CLUSTER, gpu=catalog.find(gpu))
        return rates_of(cluster, DType.BF16, Case.EXPECTED, kernel).attention

    both = table()["attention"]["measured"]["h100"] * 989.5e12  # FlashAttention-2, measured
    assert rate("flash-2") == pytest.approx(both, rel=0.01)
    assert rate("flash-3") / rate("flash-2") == pytest.approx(1.5)  # arXiv:2407.08608: at least
    assert rate("flash-1") / rate("flash-2") == pytest.approx(0.6)  # as fitted
    assert rate(None) == rate("flash-2")
    assert rate("flash-3", "a100-80gb") == rate("flash-2", "a100-80gb")  # there is none
    assert rate(None, "v100-32gb") == rate("flash-1", "v100-32gb")
