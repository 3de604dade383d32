"""Rules about heads, experts, partitions and swap buffers, against DeepSpeed's own refusals."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from checks.test_config_checks import findings_of
from support.simulated_jobs import config_of, request_for, tiny_llama

from zero_sizer import checks, models
from zero_sizer.config.document import from_mapping
from zero_sizer.config.resolve import resolve
from zero_sizer.config.workload import Workload
from zero_sizer.findings import Direction, Severity
from zero_sizer.hardware.cluster import Cluster
from zero_sizer.models.spec import Architecture, ModelSpec, Tensor

NVME = {"device": "nvme", "nvme_path": "/local_nvme"}


def ranks(count):
    return Cluster(nodes=1, gpus_per_node=count, origins={})


def found(config, model, world):
    """Code -> finding."""
    return {f.code: f for f in findings_of(from_mapping(config), ranks(world), model)}


def heads(count, kv_heads, **more):
    arch = Architecture(heads=count, kv_heads=kv_heads, **more)
    return ModelSpec(name="heads", origin="test", parameters=(Tensor("w", (64, 64)),), arch=arch)


def refusal_of_ulysses(count, kv_heads, size, monkeypatch):
    """The exception of DeepSpeed's own attention, in a group of ``size`` ranks."""
    pytest.importorskip("deepspeed")
    from deepspeed.runtime.sequence_parallel import ulysses_sp

    monkeypatch.setattr(ulysses_sp.dist, "get_world_size", lambda *_, **__: size)
    monkeypatch.setattr(ulysses_sp, "register_all_to_all_group", lambda group: "group")
    monkeypatch.setattr(ulysses_sp.dist, "get_rank", lambda *_, **__: 0)
    try:
        ulysses_sp.UlyssesSPAttentionHF(
            attn=SimpleNamespace(),
            batch_size=1,
            attn_head_count=count,
            attn_head_size=8,
            kv_head_count=kv_heads,
            num_hidden_layers=1,
            process_group=None,
            seq_length_is_variable=True,
        )
    except ValueError as error:
        return type(error).__name__
    return ""


@pytest.mark.slow
def test_sequence_ranks_that_do_not_divide_the_heads_are_refused_as_by_ulysses(monkeypatch):
    wrong, refused = [], 0
    for count, kv_heads in ((52, 52), (32, 8), (28, 4), (8, 8), (12, 3), (48, 6)):
        for size in (2, 3, 4, 6, 8, 16, 64):
            config = config_of(
                {"stage": 3}, sequence_parallel_size=size, data_parallel_size=64 // size
            )
            ours = found(config, heads(count, kv_heads), 64).get("sequence-parallel-heads")
            theirs = refusal_of_ulysses(count, kv_heads, size, monkeypatch)
            refused += bool(theirs)
            if (ours.message.partition(" ")[0] if ours else "") != theirs:
                wrong.append((count, kv_heads, size, ours, theirs))
    assert wrong == []
    assert refused > 10


@pytest.mark.parametrize(("kv_heads", "end"), [(52, "divides 52"), (4, "and goes with 4")])
def test_the_remedy_names_the_heads(kv_heads, end):
    config = config_of({"stage": 3}, sequence_parallel_size=64, data_parallel_size=1)
    said = found(config, heads(52, kv_heads), 64)["sequence-parallel-heads"]
    assert said.severity is Severity.ERROR
    assert said.remedy.endswith(end)


def test_without_sequence_ranks_heads_are_not_looked_at():
    assert "sequence-parallel-heads" not in found(config_of({"stage": 3}), heads(7, 7), 8)


@pytest.mark.parametrize(("size", "word"), [(8, "only the first 4"), (3, "hold more"), (4, "")])
def test_tensor_ranks_and_key_value_heads(size, word):
    config = config_of({"stage": 1}, tensor_parallel={"autotp_size": size})
    said = found(config, heads(28, 4), 24).get("tensor-parallel-heads")
    assert (word in said.message) if word else said is None


def test_flash_attention_on_ranks_without_heads_is_an_error():
    """The engine's own refusal: test_simulated_tensor_parallel."""
    config = config_of({"stage": 1}, tensor_parallel={"autotp_size": 8})
    document, cluster = from_mapping(config), ranks(8)
    flash = Workload(attention="flash")
    settings, _ = resolve(document, flash, world_size=8, model=heads(28, 4))
    context = checks.Context(
        document=document, settings=settings, cluster=cluster, workload=flash, model=heads(28, 4)
    )
    said = {f.code: f.severity for f in checks.run(context)}
    assert said["tensor-parallel-heads"] is Severity.ERROR


@pytest.mark.slow
def test_only_partitions_of_a_multiple_of_8_are_quantized():
    pytest.importorskip("deepspeed")
    import torch
    from deepspeed.runtime.zero.partition_parameters import CUDAQuantizer

    quantizer = object.__new__(CUDAQuantizer)
    quantizer.group_size_cache = {}
    quantizer.target_group_size = 8000
    quantizer.quantizer_cuda_module = SimpleNamespace(quantize=lambda *_: None, Symmetric=None)

    def theirs(numel):
        try:
            quantizer.quantize(torch.empty(numel))
        except AssertionError:
            return True
        return False

    zero = {"stage": 3, "zero_quantized_weights": True}
    for numel, world in ((8 * 999, 1), (4096, 4), (4096, 3), (896, 64), (896, 8), (24, 3), (20, 2)):
        model = ModelSpec(name="m", origin="test", parameters=(Tensor("a.weight", (numel,)),))
        ours = found(config_of(zero), model, world).get("quantized-partitions")
        assert bool(ours) is (world > 1 and theirs(-(-numel // world))), (numel, world)


@pytest.mark.slow
def test_the_engine_stops_at_the_tensor_that_is_named():
    from zero_sizer.dryrun.simulated.parent import run_requests

    fields = {"vocab_size": 509, "hidden_size": 56}
    request = request_for({"stage": 3, "zero_quantized_weights": True}, ranks=6)
    (outcome,) = run_requests([replace(request, hf_config={**request.hf_config, **fields})])
    assert "multiple of 8" in str(outcome)
    assert "4751 cannot" in str(outcome)  # 509 x 56 / 6


def test_a_module_whose_tensors_make_it_together_is_fine():
    pair = (Tensor("a.weight", (60,)), Tensor("a.bias", (4,)))
    model = ModelSpec(name="pair", origin="test", parameters=pair)
    zero = {"stage": 3, "zero_quantized_weights": True}
    assert "quantized-partitions" not in found(config_of(zero), model, 4)
    assert "quantized-partitions" in found(config_of(zero), replace(model, parameters=pair[:1]), 4)


def test_frozen_partitions_are_quantized_one_by_one():
    frozen = Tensor("base.weight", (60,), trainable=False)
    model = ModelSpec(name="f", origin="test", parameters=(frozen, Tensor("a.weight", (64,))))
    zero = {"stage": 3, "zero_quantized_nontrainable_weights": True}
    said = found(config_of(zero), model, 4)["quantized-partitions"]
    assert "base.weight has 15 elements" in said.message


EXPERTS = {"expert_parallel": {"enabled": True, "autoep_size": 1}}
MOE = {"mixtral": True, "qwen3_moe": True, "deepseek_v3": False}


@pytest.mark.slow
@pytest.mark.parametrize("family", MOE)
def test_experts_that_autoep_cannot_replace(family):
    """DeepSpeed 0.19.8 on transformers 5.23, without a device."""
    pytest.importorskip("deepspeed")
    transformers = pytest.importorskip("transformers")
    from deepspeed.module_inject.auto_ep import AutoEP
    from deepspeed.module_inject.auto_ep_config import AutoEPConfig

    config = transformers.AutoConfig.for_model(family)
    small = {
        "hidden_size": 32, "intermediate_size": 32, "moe_intermediate_size": 32, "vocab_size": 64,
        "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2,
        "num_local_experts": 4, "num_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2,
        "n_group": 1, "topk_group": 1, "q_lora_rank": None, "kv_lora_rank": 8, "v_head_dim": 8,
        "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "first_k_dense_replace": 0,
    }  # fmt: skip
    for name, value in small.items():
        if hasattr(config, name):
            setattr(config, name, value)
    parallel = AutoEP(
        transformers.AutoModelForCausalLM.from_config(config),
        AutoEPConfig(enabled=True, autoep_size=1),
    )
    try:
        parallel.replace_moe_layers(parallel.ep_parser(), ep_size=1, ep_rank=0)
        raised = ""
    except TypeError as error:
        raised = type(error).__name__
    said = found(config_of({"stage": 2}, **EXPERTS), heads(4, 2, family=family), 8)
    ours = said.get("expert-parallel-transformers")
    assert bool(raised) is MOE[family]
    assert (ours.message.partition(":")[0] if ours else "") == raised


@pytest.mark.slow
def test_swap_buffers_and_tensor_ranks_are_refused_by_the_simulated_engine(tmp_path):
    """What needs the compiled reader, or several ranks: engine, rule and exception agree."""
    from zero_sizer.dryrun.simulated.parent import run_requests

    big = {"hidden_size": 1024, "intermediate_size": 2048, "vocab_size": 4096}
    model = tiny_llama(tmp_path, **big)
    zeros = [
        {"stage": 3, "offload_optimizer": {**NVME, "buffer_count": 0}},
        {"stage": 3, "offload_optimizer": {**NVME, "buffer_count": 3}},
        {"stage": 3, "offload_optimizer": {**NVME, "buffer_count": 4}},
        {"stage": 3, "offload_param": {**NVME, "buffer_count": 0, "max_in_cpu": 0}},
        {"stage": 3, "offload_param": {**NVME, "buffer_size": 1_500_000, "max_in_cpu": 0}},
    ]
    configs = [config_of(zero) for zero in zeros]
    sizes = {"autotp_size": 2, "tp": {"tp_size": 4}}
    configs.append(config_of({"stage": 1}, tensor_parallel=sizes))
    requests = []
    for index, config in enumerate(configs):
        own = {k: {**v, "nvme_path": str(tmp_path / str(index))} if isinstance(v, dict) else v
               for k, v in config["zero_optimization"].items()}  # fmt: skip
        base = request_for({"stage": own["stage"]}, ranks=2)
        fields = {**base.hf_config, **big}
        requests.append(
            replace(base, hf_config=fields, config={**config, "zero_optimization": own})
        )
    for config, outcome in zip(configs, run_requests(requests), strict=True):
        errors = [
            f for f in findings_of(from_mapping(config), ranks(2), model)
            if f.severity is Severity.ERROR
        ]  # fmt: skip
        raised = str(outcome).partition(":")[0] if isinstance(outcome, Exception) else ""
        said = [f.message.partition(":")[0].partition(" ")[0] for f in errors]
        assert said == ([raised] if raised else []), (config, outcome)


def test_what_is_not_modelled_says_which_way_it_moves_the_prediction():
    said = {
        "tensor_parallel.autotp_size": ({"tensor_parallel": {"autotp_size": 2}}, Direction.EITHER),
        "sequence_parallel_size": ({"sequence_parallel_size": 2}, Direction.EITHER),
        "pipeline.stages": ({"pipeline": {"stages": 2}}, Direction.EITHER),
        "hybrid_engine.enabled": ({"hybrid_engine": {"enabled": True}}, Direction.COST),
        "expert_parallel.enabled": (EXPERTS, Direction.EITHER),
    }
    for key, (extra, direction) in said.items():
        for finding in findings_of(from_mapping(config_of({"stage": 2}, **extra))):
            if finding.code == "not-modelled":
                assert (finding.key, finding.direction) == (key, direction)


def test_bundled_models_have_the_heads_that_the_rules_need():
    for name in ("llama-3-8b", "qwen2.5-7b", "gpt2-xl", "mixtral-8x7b"):
        arch = models.load(name).arch
        assert arch.heads
        assert arch.family


def test_a_parameter_without_dimensions_is_told():
    """What the engine says of it: tests/ledger/test_seeing_parity.py."""
    clip = found(config_of({"stage": 3}), models.load("clip-vit-base"), 8)
    finding = clip["parameter-without-dimensions"]
    assert finding.severity is Severity.ERROR
    assert "logit_scale" in finding.message
    assert "zero.Init" in finding.remedy
    for name in ("siglip-so400m", "vit-base"):
        assert "parameter-without-dimensions" not in found(config_of({}), models.load(name), 8)
