"""Our reading of one key at a time against DeepSpeed's own parser: same verdict, same value."""

import math
from enum import Enum
from pathlib import PurePath
from typing import Any

import pytest
from support.config_witness import BASE, Witness, errors, load_witness, merged, nested, resolved

from zero_sizer.config import auto, keys
from zero_sizer.config.batch import KEYS as BATCH_KEYS

pytestmark = pytest.mark.slow

VALUES: list[Any] = [
    True, False, 0, 1, 2, 3, 7, -1, 500_000_000, 10**12, 2**70,
    0.0, 1.0, 0.5, 1.5, -0.5, 5e8, 1e12, 1e19, math.inf, math.nan,
    "", "x", "auto", "cpu", "CPU", "none", "fp16", "bf16", "BF16", "warn", "SUM", "true", "Yes",
    "off", "3", " 3 ", "03", "3.0", "5e8", "-1", "1_000", "1__0", "0.5", ".5", "1.", "nan",
    "torch", "z1",
    None, [], [1], ["x"], ["z1"], ["x", 1], [[1]], {}, {"x": 1}, {"enabled": True},
]  # fmt: skip
# Rules about two keys at once belong to zero_sizer.checks; here each key gets company that
# satisfies them, so that only the key itself is judged.
COMPANY: dict[str, dict[str, Any]] = {
    "zero_optimization.compute_grad_norm": {"zero_optimization": {"stage": 1}},
    "zero_optimization.offload_optimizer": {"zero_optimization": {"stage": 3}},
    "fp16.fp16_master_weights_and_grads": {"zero_optimization": {"stage": 1}},
    "bf16": {"zero_optimization": {"stage": 1}, "bf16": {"bf16_master_weights_and_grads": True}},
    "optimizer": {"optimizer": {"type": "Adam"}},
    "scheduler": {"scheduler": {"type": "WarmupLR"}},
    "data_efficiency": {
        "data_efficiency": {
            "data_sampling": {
                "curriculum_learning": {"curriculum_metrics": {}, "enabled": False},
                "dynamic_batching": {"max_tokens": 1},
            },
            "data_routing": {"random_ltd": {"enabled": False}},
        }
    },
}  # fmt: skip

# Hugging Face fills "auto" here before DeepSpeed sees it (test_config_auto.py).
FILLED = {*auto.HIDDEN_KEYS, *auto.PLUGIN_DEFAULTS, *auto.PRECISIONS}


def company(path: str) -> dict[str, Any]:
    config = dict(BASE)
    for prefix, extra in COMPANY.items():
        if path == prefix or path.startswith(f"{prefix}."):
            config = merged(config, extra)
    return config


@pytest.fixture
def witness(monkeypatch: pytest.MonkeyPatch) -> Witness:
    return load_witness(monkeypatch)


def paths() -> list[str]:
    table = keys.table()
    both = [*table.keys, *table.aliases, *(path for path in table.sections if path)]
    return [path for path in both if path not in BATCH_KEYS]


def plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    return str(value) if isinstance(value, PurePath) else value


def same(held: Any, ours: Any) -> bool:
    held = plain(held)
    if str(held).startswith("torch."):
        return str(held) == f"torch.{ours}"
    if isinstance(held, str) and isinstance(ours, str) and PurePath(ours) == PurePath(held):
        return True
    return (held == ours and type(held) is type(ours)) or (held != held and ours != ours)


def test_one_key_at_a_time_is_judged_and_held_as_deepspeed_does(witness: Witness) -> None:
    """Refused exactly when DeepSpeed refuses, by its exception; else held as DeepSpeed holds it."""
    disagreements = []
    for path in paths():
        for value in VALUES:
            config = merged(company(path), nested(path, value))
            parsed, refusal = witness.judge(config)
            ours, findings = resolved(config)
            said = [finding.message for finding in errors(findings)]
            if bool(refusal) != bool(said) or not any(m.startswith(refusal) for m in said or [""]):
                disagreements.append(f"{path} = {value!r}: DeepSpeed {refusal!r}, ours {said}")
            elif not refusal and path in ours and not (value == "auto" and path in FILLED):
                held = held_or_ours(witness, parsed, path, ours[path])
                if not same(held, ours[path]):
                    disagreements.append(f"{path} = {value!r}: {held!r}, ours {ours[path]!r}")
    assert not disagreements, f"{len(disagreements)}:\n" + "\n".join(disagreements)


def held_or_ours(witness: Witness, parsed: Any, path: str, ours: Any) -> Any:
    """What DeepSpeed holds; our own value where it keeps none to compare with."""
    try:
        return witness.held(parsed, path)
    except (LookupError, AttributeError):
        return ours


def test_defaults_are_those_deepspeed_holds_for_an_empty_config(witness: Witness) -> None:
    compared = 0
    for path in keys.table().keys:
        section = keys.parent(path)
        config = merged(BASE, nested(section, {})) if section else dict(BASE)
        try:
            held = witness.held(witness.parse(config), path)
        except (LookupError, AttributeError):
            continue
        ours = resolved(config)[0][path]
        assert str(plain(held)).removeprefix("torch.") == str(ours), path
        compared += 1
    assert compared > 150
