"""Resolving: aliases, deprecated and removed keys, unknown keys, origins; no input breaks it."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.config_witness import BASE, errors, load_witness, merged, resolved

from zero_sizer.config import keys
from zero_sizer.config.batch import KEYS
from zero_sizer.config.document import from_mapping, load
from zero_sizer.config.resolve import resolve
from zero_sizer.config.workload import Workload
from zero_sizer.findings import Finding
from zero_sizer.models.spec import ModelSpec

ZERO = "zero_optimization"


def said(config: dict[str, Any]) -> set[tuple[str, str, str]]:
    findings = resolved(merged(BASE, config))[1]
    return {(finding.severity.value, finding.code, finding.key) for finding in findings}


def settings_of(config: dict[str, Any]) -> Any:
    return resolved(merged(BASE, config))[0]


def test_every_known_key_and_section_has_a_setting() -> None:
    ours = settings_of({})
    expected = {*keys.table().keys} | {
        path for path, section in keys.table().sections.items() if path and not section.alias_of
    }
    assert expected <= set(ours.by_key)
    assert all(ours.is_default(path) for path in expected if path not in KEYS)


@pytest.mark.parametrize(
    ("config", "path", "value"),
    [
        ({ZERO: {"prefetch_bucket_size": 7}}, f"{ZERO}.stage3_prefetch_bucket_size", 7),
        ({ZERO: True}, f"{ZERO}.stage", 1),
        ({ZERO: False}, f"{ZERO}.stage", 0),
        ({ZERO: True, "allgather_size": 9}, f"{ZERO}.allgather_bucket_size", 9),
        ({ZERO: {"stage": "3"}}, f"{ZERO}.overlap_comm", True),
        ({ZERO: {"stage": 2}}, f"{ZERO}.overlap_comm", False),
        ({ZERO: {"stage": 3, "overlap_comm": False}}, f"{ZERO}.overlap_comm", False),
        ({ZERO: {"stage": 3, "overlap_comm": None}}, f"{ZERO}.overlap_comm", True),
        ({ZERO: {"sub_group_size": 1e12}}, f"{ZERO}.sub_group_size", 10**12),
        ({ZERO: {"cpu_offload": True}}, f"{ZERO}.offload_optimizer.device", "cpu"),
        ({ZERO: {"cpu_offload": "yes"}}, f"{ZERO}.offload_optimizer", True),
        ({ZERO: {"cpu_offload": False}}, f"{ZERO}.offload_optimizer", False),
        ({ZERO: {"cpu_offload_param": True}}, f"{ZERO}.offload_param.device", "cpu"),
        ({ZERO: {}}, f"{ZERO}.offload_optimizer.device", "none"),
        ({ZERO: {"offload_optimizer": None}}, f"{ZERO}.offload_optimizer", False),
        ({ZERO: {"offload_optimizer": {}}}, f"{ZERO}.offload_optimizer", True),
        ({ZERO: {"leaf_module": {"names": "a"}}}, f"{ZERO}.leaf_module.names", ["a"]),
        (
            {ZERO: {"stage3_gather_fp16_weights_on_model_save": True}},
            f"{ZERO}.stage3_gather_16bit_weights_on_model_save",
            True,
        ),
        ({"bfloat16": {"enabled": True}}, "bf16.enabled", True),
        ({"bfloat16": {"enabled": True}, "bf16": {}}, "bf16.enabled", False),
        ({f"{ZERO}.stage": 3}, f"{ZERO}.stage", 0),
        ({"": {"dump_state": True}}, "dump_state", False),
        ({"optimizer": {"type": "AdamW"}}, "optimizer.type", "adamw"),
        ({"optimizer": {"params": {"max_grad_norm": "x"}}}, "optimizer.type", None),
        ({"optimizer": {"type": "Adafactor"}}, "optimizer.type", "Adafactor"),
        ({"optimizer": {"type": "Adam", "params": {"lr": 1e-4}}}, "optimizer.params.lr", 1e-4),
        ({"communication_data_type": "FP32"}, "communication_data_type", "fp32"),
        ({"fp16": {"loss_scale": "128"}}, "fp16.loss_scale", 128.0),
    ],
    ids=str,
)
def test_the_value_held(config: dict[str, Any], path: str, value: Any) -> None:
    ours = settings_of(config)
    assert ours[path] == value
    assert type(ours[path]) is type(value)


@pytest.mark.parametrize(
    ("config", "finding"),
    [
        ({"zero_optimisation": {"stage": 3}}, ("warning", "unknown-key", "zero_optimisation")),
        ({"stage": 3}, ("warning", "unknown-key", "stage")),
        ({"_comment": "mine"}, ("note", "unknown-key", "_comment")),
        ({ZERO: {"_comment": "mine"}}, ("error", "unknown-key", f"{ZERO}._comment")),
        ({"zero_optimization.stage": 3}, ("warning", "unknown-key", "zero_optimization.stage")),
        ({"": {"dump_state": True}}, ("warning", "unknown-key", "")),
        ({ZERO: {"stag": 3}}, ("error", "unknown-key", f"{ZERO}.stag")),
        ({ZERO: {"stag": "auto"}}, ("warning", "unknown-key", f"{ZERO}.stag")),
        ({"aio": {"blocks": 1}}, ("warning", "unknown-key", "aio.blocks")),
        ({ZERO: {"stage": 4}}, ("error", "bad-value", f"{ZERO}.stage")),
        ({ZERO: {"reduce_bucket_size": 0}}, ("error", "bad-value", f"{ZERO}.reduce_bucket_size")),
        ({ZERO: {"sub_group_size": 1.5}}, ("error", "wrong-type", f"{ZERO}.sub_group_size")),
        ({ZERO: {"sub_group_size": "5"}}, ("note", "number-as-string", f"{ZERO}.sub_group_size")),
        ({"gradient_clipping": "1.0"}, ("warning", "number-as-string", "gradient_clipping")),
        ({"dump_state": "false"}, ("warning", "wrong-type", "dump_state")),
        ({"bf16": True}, ("error", "wrong-type", "bf16")),
        ({"amp": {"enabled": False}}, ("error", "removed-key", "amp")),
        ({ZERO: {"mics_shard_size": 1}}, ("error", "removed-key", f"{ZERO}.mics_shard_size")),
        ({ZERO: {"cpu_offload": False}}, ("warning", "deprecated-key", f"{ZERO}.cpu_offload")),
        ({ZERO: True}, ("warning", "deprecated-key", ZERO)),
        (
            {ZERO: {"cpu_offload": False, "offload_optimizer": {}}},
            ("error", "deprecated-key", f"{ZERO}.cpu_offload"),
        ),
        (
            {ZERO: {"stage3_max_live_parameters": 1, "max_live_parameters": 1}},
            ("error", "duplicate-key", f"{ZERO}.max_live_parameters"),
        ),
        ({"bf16": {}, "bfloat16": {}}, ("warning", "duplicate-key", "bfloat16")),
        ({"steps_per_print": "auto", "gradient_predivide_factor": "auto"},
         ("warning", "auto-not-filled", "gradient_predivide_factor")),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_said(config: dict[str, Any], finding: tuple[str, str, str]) -> None:
    assert finding in said(config)


@pytest.mark.slow
def test_an_error_for_every_pair_of_old_and_new_that_deepspeed_refuses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    witness = load_witness(monkeypatch)
    olds = {"cpu_offload": True, "cpu_offload_param": True, "cpu_offload_use_pin_memory": True}
    olds |= {"stage3_gather_fp16_weights_on_model_save": True, "prefetch_bucket_size": 5}
    news: dict[str, Any] = {"offload_optimizer": {"device": "cpu"}, "offload_param": None}
    news |= {"stage3_gather_16bit_weights_on_model_save": False, "stage3_prefetch_bucket_size": 5}
    news |= {"gather_16bit_weights_on_model_save": True}
    for old, value in olds.items():
        for new, other in news.items():
            for first, second in ((value, other), ("auto", other), (value, "auto"), (None, other)):
                config = merged(BASE, {ZERO: {old: first, new: second}})
                ours = errors(resolved(config)[1])
                assert bool(ours) == bool(witness.refusal(config)), config


def test_a_value_that_is_refused_falls_back_and_says_so() -> None:
    ours, findings = resolved(merged(BASE, {ZERO: {"reduce_bucket_size": -1}}))
    assert ours[f"{ZERO}.reduce_bucket_size"] == 500_000_000
    (finding,) = findings
    assert finding.message == "ValidationError: must be greater than 0, not -1"
    assert finding.remedy == "the default, 500000000, is used here"


def test_lines_and_origins(tmp_path: Path) -> None:
    file = tmp_path / "ds.json"
    text = '{\n"train_batch_size": 8,\n"zero_optimization": {\n "stage": 2,\n "stag": 1}}'
    file.write_text(text)
    ours, findings = resolve(load(str(file)), Workload(), world_size=2, model=None)
    assert ours.origin(f"{ZERO}.stage") == f"{file}:4"
    assert ours.origin(f"{ZERO}.sub_group_size") == "DeepSpeed's default"
    assert ours.origin("train_micro_batch_size_per_gpu").startswith("computed: ")
    assert [(finding.key, finding.line) for finding in findings] == [(f"{ZERO}.stag", 5)]
    assert ours.under(ZERO)["stage"] == 2


json_values = st.recursive(
    st.sampled_from(
        ["auto", None, True, False, 0, 1, 3, -1, 1.5, float("nan"), 2**80, "", "3", "x"]
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["stage", "enabled", "type", "device", "x"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)
configs = st.dictionaries(
    st.sampled_from([path for path in (*keys.table().keys, *keys.table().sections) if path]),
    json_values,
    max_size=6,
)
models = st.sampled_from(
    [None, {}, {"hidden_size": "x"}, {"text_config": 3}, {"hidden_sizes": [1]}]
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(flat=configs, world=st.integers(1, 9), hf_config=models)
def test_no_config_whatever_breaks_the_resolver(
    flat: dict[str, Any], world: int, hf_config: dict[str, Any] | None
) -> None:
    config: dict[str, Any] = {}
    for path, value in flat.items():
        node = config
        *parents, name = path.split(".")
        for part in parents:
            inner = node.setdefault(part, {})
            node = inner if isinstance(inner, dict) else {}
        node[name] = value
    spec = None
    if hf_config is not None:
        spec = ModelSpec(name="m", origin="", parameters=(), hf_config=hf_config)
    ours, findings = resolve(from_mapping(config), Workload(), world_size=world, model=spec)
    assert set(keys.table().keys) <= set(ours.by_key)
    assert all(isinstance(finding, Finding) and "\n" not in finding.message for finding in findings)
    micro = ours["train_micro_batch_size_per_gpu"]
    assert micro is None or (isinstance(micro, int) and micro > 0)
