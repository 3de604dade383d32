"""Filling "auto", against the code that does it: transformers' Trainer, accelerate's plugin."""

import copy
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.config_witness import errors, load_witness

from zero_sizer.config.auto import hidden_size
from zero_sizer.config.document import Document, from_mapping
from zero_sizer.config.resolve import resolve
from zero_sizer.config.settings import Settings
from zero_sizer.config.workload import Workload
from zero_sizer.findings import Finding
from zero_sizer.models.sources.bundled import bundled_names, load_bundled
from zero_sizer.models.spec import Architecture, ModelSpec

HIDDEN = {"hidden_size": 4096}
ZERO = {
    "reduce_bucket_size": "auto",
    "stage3_prefetch_bucket_size": "auto",
    "stage3_param_persistence_threshold": "auto",
}
CONFIG = {
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "bf16": {"enabled": "auto"},
    "fp16": {"enabled": "auto"},
    "zero_optimization": {"stage": 3, **ZERO},
}


def model(hf_config: dict[str, Any], hidden: int | None = None) -> ModelSpec:
    arch = Architecture(hidden=hidden)
    return ModelSpec(name="m", origin="test", parameters=(), hf_config=hf_config, arch=arch)


def ours(
    config: dict[str, Any], hf_config: dict[str, Any] | None = HIDDEN, world: int = 8, **flags: Any
) -> tuple[Settings, list[Finding]]:
    workload = Workload(**flags)
    spec = None if hf_config is None else model(hf_config)
    return resolve(from_mapping(config), workload, world_size=world, model=spec)


def by_hugging_face(
    config: dict[str, Any], hf_config: Any, *, world: int, flags: dict[str, Any]
) -> dict[str, Any]:
    """The config after transformers and accelerate have filled it, by their own code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from accelerate import DeepSpeedPlugin
        from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig

        holder = HfTrainerDeepSpeedConfig(copy.deepcopy(config))
        args = SimpleNamespace(
            world_size=world,
            per_device_train_batch_size=flags["micro_batch"],
            gradient_accumulation_steps=flags["grad_accum"],
            max_grad_norm=1.0,
            learning_rate=5e-5,
            adam_beta1=0.9,
            adam_beta2=0.999,
            adam_epsilon=1e-8,
            weight_decay=0.0,
            save_on_each_node=False,
            fp16=flags["precision"] == "fp16",
            bf16=flags["precision"] == "bf16",
            fp16_full_eval=False,
            bf16_full_eval=False,
            get_warmup_steps=lambda steps: 0,
        )
        holder.trainer_config_process(args)
        plugin = DeepSpeedPlugin(hf_ds_config=holder)
        mixed = {"fp32": "no"}.get(flags["precision"], flags["precision"])
        plugin.set_mixed_precision(mixed)
        holder.trainer_config_finalize(args, SimpleNamespace(config=hf_config), 100)
    return plugin.deepspeed_config  # type: ignore[no-any-return]


def namespace(hf_config: dict[str, Any]) -> SimpleNamespace:
    nested = {k: namespace(v) if isinstance(v, dict) else v for k, v in hf_config.items()}
    return SimpleNamespace(**nested)


ZERO_OFF = {"zero_optimization": {"stage": 0}}
FLAGS = {"micro_batch": 1, "grad_accum": 1, "precision": "fp32"}
WITHOUT_SECTIONS = {key: value for key, value in CONFIG.items() if key not in ("bf16", "fp16")}
ONLY_MICRO = {"train_micro_batch_size_per_gpu": "auto", "zero_optimization": {"stage": 1}}
OFFLOAD_AUTO = {
    "train_micro_batch_size_per_gpu": "auto",
    "zero_optimization": {
        "stage": "auto",
        "offload_optimizer": {"device": "auto", "nvme_path": "auto"},
        "offload_param": {"device": "auto"},
        "stage3_gather_16bit_weights_on_model_save": "auto",
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
@pytest.mark.parametrize(
    "hf_config",
    [
        HIDDEN,
        {"hidden_sizes": [96, 1536, 384]},
        {"text_config": {"hidden_size": 2048}},
        {"text_config": {"hidden_sizes": [8, 72]}},
        {"hidden_size": 640, "text_config": {"hidden_size": 2048}},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "config", [CONFIG, WITHOUT_SECTIONS, ONLY_MICRO, OFFLOAD_AUTO], ids=lambda c: f"{len(c)} keys"
)
def test_every_auto_becomes_what_hugging_face_makes_of_it(
    config: dict[str, Any],
    hf_config: dict[str, Any],
    precision: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load_witness(monkeypatch)
    flags = {**FLAGS, "precision": precision}
    settings, findings = ours(config, hf_config, **flags)
    assert not errors(findings)
    theirs = by_hugging_face(config, namespace(hf_config), world=8, flags=flags)
    compared = 0
    for path, value in from_mapping(theirs).leaves():
        if path in settings and path not in ("steps_per_print", "fp16.auto_cast"):
            assert settings[path] == value, path
            compared += 1
    assert compared >= 3


def test_hidden_size_keys_say_where_they_come_from(tmp_path: Path) -> None:
    from zero_sizer.config.document import load

    file = tmp_path / "ds.json"
    file.write_text('{"zero_optimization": {\n "stage": 3,\n "reduce_bucket_size": "auto"}}')
    document: Document = load(str(file))
    settings, _ = resolve(
        document, Workload(micro_batch=1), world_size=1, model=model({"hidden_size": 4096})
    )
    key = "zero_optimization.reduce_bucket_size"
    assert settings[key] == 4096**2
    expected = f'"auto" ({file}:3) -> hidden_size^2 = 4096^2 (Hugging Face Trainer)'
    assert settings.origin(key) == expected


def codes(findings: list[Finding]) -> set[tuple[str, str, str]]:
    return {(f.severity.value, f.code, f.key) for f in findings}


def test_what_nothing_decides_is_a_finding_and_no_number() -> None:
    settings, findings = ours(CONFIG, None)
    unresolved = {
        "train_micro_batch_size_per_gpu",
        "bf16.enabled",
        "zero_optimization.reduce_bucket_size",
        "zero_optimization.stage3_prefetch_bucket_size",
        "zero_optimization.stage3_param_persistence_threshold",
    }
    for key in unresolved | {"fp16.enabled", "train_batch_size"}:
        assert settings[key] is None, key
    assert {key for _, code, key in codes(findings) if code == "auto-unresolved"} == unresolved
    assert not errors(findings)


def test_a_model_without_hidden_size_is_an_error_as_in_transformers() -> None:
    _, findings = ours(CONFIG, {"d_inner": 3}, micro_batch=1, precision="bf16")
    key = "zero_optimization.reduce_bucket_size"
    assert ("error", "auto-unresolved", key) in codes(findings)


def test_other_names_of_the_hidden_size_count() -> None:
    config = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": 3, **ZERO}}
    spec = model({"n_embd": 768}, hidden=768)  # GPT-2: attribute_map makes n_embd the hidden size
    settings, _ = resolve(from_mapping(config), Workload(), world_size=1, model=spec)
    assert settings["zero_optimization.stage3_param_persistence_threshold"] == 7680


@pytest.mark.slow
@pytest.mark.parametrize("name", bundled_names())
def test_the_hidden_size_is_the_one_transformers_reads(name: str) -> None:
    from transformers import CONFIG_MAPPING

    spec = load_bundled(name)
    if "_class_name" in spec.hf_config:
        pytest.skip("diffusers fills in nothing")
    config = CONFIG_MAPPING[spec.hf_config["model_type"]].from_dict(dict(spec.hf_config))
    owner = config if hasattr(config, "hidden_size") else config.text_config
    assert hidden_size(spec) == owner.hidden_size


@pytest.mark.parametrize(
    ("literal", "flags"),
    [
        ({"train_micro_batch_size_per_gpu": 2}, {"micro_batch": 3}),
        ({"gradient_accumulation_steps": 2}, {"micro_batch": 3, "grad_accum": 4}),
        ({"bf16": {"enabled": True}}, {"micro_batch": 3, "precision": "fp16"}),
        ({"fp16": {"enabled": False}}, {"micro_batch": 3, "precision": "fp16"}),
    ],
)
def test_a_flag_against_the_config_is_the_trainers_value_error(
    literal: dict[str, Any], flags: dict[str, Any]
) -> None:
    config = {**CONFIG, **literal}
    _, findings = ours(config, **flags)
    key = next(iter(from_mapping(literal).leaves()))[0]
    assert ("error", "auto-mismatch", key) in codes(findings)


def test_precision_follows_from_a_literal_true() -> None:
    settings, findings = ours({**CONFIG, "bf16": {"enabled": True}}, micro_batch=1)
    assert settings["bf16.enabled"] is True
    assert settings["fp16.enabled"] is False
    assert not any(finding.key == "fp16.enabled" for finding in findings)


def test_a_literal_train_batch_leaves_one_micro_batch() -> None:
    config = {**CONFIG, "train_batch_size": 64, "gradient_accumulation_steps": 4}
    settings, findings = ours(config, precision="bf16")
    assert settings["train_micro_batch_size_per_gpu"] == 2
    assert not findings


def test_an_auto_that_nobody_fills_is_said_to_be_the_default() -> None:
    config = {"train_batch_size": 8, "zero_optimization": {"stage3_max_live_parameters": "auto"}}
    settings, findings = ours(config)
    key = "zero_optimization.stage3_max_live_parameters"
    assert settings[key] == 1_000_000_000
    assert codes(findings) == {("warning", "auto-not-filled", key)}


@pytest.mark.slow
def test_accelerate_wants_a_zero_section() -> None:
    _, findings = ours({"train_micro_batch_size_per_gpu": "auto"}, micro_batch=1)
    assert codes(findings) == {("warning", "auto-without-zero", "zero_optimization")}
    with pytest.raises(ValueError, match="ZeRO optimization config"):
        by_hugging_face({"train_batch_size": 8}, None, world=8, flags=FLAGS)


def test_learning_rate_and_the_like_are_no_findings() -> None:
    optimizer = {"type": "AdamW", "params": {"lr": "auto", "betas": "auto", "eps": "auto"}}
    settings, findings = ours({"train_batch_size": 8, "optimizer": optimizer, **ZERO_OFF})
    assert not findings
    assert "does not affect memory" in settings.origin("optimizer.params.lr")
