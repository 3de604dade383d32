"""The schema of a DeepSpeed config takes what DeepSpeed takes, and refuses what it refuses."""

import json
from pathlib import Path

import pytest
from jsonschema import Draft7Validator

from zero_sizer import cli
from zero_sizer.config import document, keys
from zero_sizer.config.resolve import resolve
from zero_sizer.config.schema import config_schema, sentences
from zero_sizer.config.values import RefusedError, convert
from zero_sizer.config.workload import Workload
from zero_sizer.findings import Severity

ROOT = Path(__file__).parents[2]
SCHEMA, STRICT = config_schema(), config_schema(strict=True)
PLAIN_VALIDATOR, STRICT_VALIDATOR = Draft7Validator(SCHEMA), Draft7Validator(STRICT)
TABLE = keys.table()
VALUES = [
    *(None, True, False, 0, 1, 2, 3, 4, -1, 10**9, 0.0, 1.0, 0.5, 1.5, -0.5, 5e8, 1e-9, 2.0**20),
    *("", " ", "auto", "none", "cpu", "nvme", "true", "False", "YES", "off", "1", "0", "2", "-3"),
    *("1e8", "5e8", "0.5", "1_000", " 7 ", "2.0", "+1", "fp16", "FP16", "bf16", "Bf16", "bfloat16"),
    *("mean", "SUM", "warn", "torch", "liger", "epoch", "step", "symmetric", "inf", "nan", "x"),
    *([], ["a"], [1], ["a", 1], ["z1"], [["a"]], {}, {"a": 1}),
]


def validates(validator, path, value):
    """Whether a config with this one value validates."""
    node = value
    for name in reversed(path.split(".")):
        node = {name: node}
    if path.startswith("optimizer.params"):
        node["optimizer"]["type"] = "AdamW"
    return validator.is_valid(node)


def accepted(key, value):
    section = TABLE.sections[keys.parent(key.path)]
    if value == "auto" and section.parser == "pydantic":
        return True  # thrown away
    try:
        convert(key, value)
    except RefusedError:
        return False
    return True


@pytest.mark.parametrize("schema", [SCHEMA, STRICT], ids=["plain", "strict"])
def test_it_is_a_schema(schema):
    Draft7Validator.check_schema(schema)


@pytest.mark.slow
@pytest.mark.parametrize("path", TABLE.keys)
def test_a_key_takes_what_deepspeed_takes(path):
    """``convert`` is held to DeepSpeed's own parser elsewhere."""
    key = TABLE.keys[path]
    wrong = {}
    for value in VALUES:
        takes, validates_here = accepted(key, value), validates(PLAIN_VALIDATOR, path, value)
        if takes is not validates_here and not _is_beyond(key, value, takes):
            wrong[json.dumps(value)] = f"DeepSpeed {takes}, schema {validates_here}"
    assert not wrong


def _is_beyond(key, value, takes):
    """What JSON Schema cannot tell apart; never in the direction of refusing too much."""
    if takes:
        return False
    in_text = isinstance(value, str) and bool(key.bounds)
    return in_text or (isinstance(value, float) and value.is_integer() and key.type == "any")


def test_every_key_and_section_has_a_sentence():
    paths = {*TABLE.keys, *(path for path in TABLE.sections if path)}
    assert paths <= sentences().keys()
    for path, about in sentences().items():
        assert about[0].isupper(), path
        assert about.endswith("."), path
        assert len(about) < 140, path


def shown(path):
    """Schema of a key, as an editor finds it."""
    node = SCHEMA
    for name in path.split("."):
        inner = node if "properties" in node else node["anyOf"][0]
        node = inner["properties"][name]
    return node


def test_what_an_editor_shows():
    stage = shown("zero_optimization.stage")
    assert stage["default"] == 0
    assert [0, 1, 2, 3] in [branch.get("enum") for branch in stage["anyOf"]]
    assert "filled by the Hugging Face Trainer" in stage["description"]
    bucket = shown("zero_optimization.reduce_bucket_size")
    assert bucket["default"] == 500_000_000
    assert bucket["anyOf"][0] == {"type": "integer", "exclusiveMinimum": 0}
    old = shown("zero_optimization.cpu_offload")
    assert old["deprecated"]
    assert old["deprecationMessage"] == "use offload_optimizer"
    assert "removed" in shown("sparse_attention")["description"]
    assert shown("bfloat16")["deprecated"]
    assert "default" not in shown("zero_optimization.stage3_model_persistence_threshold")


MISSPELT = [
    ("zero_optimization", {"stagee": 3}, True),
    ("zero_optimization", {"offload_optimizer": {"devise": "cpu"}}, True),
    ("bf16", {"enable": True}, True),
    ("fp16", {"los_scale": 0}, True),
    ("train_micro_batch_per_gpu", 4, False),
    ("optimizer", {"typ": "AdamW"}, False),
    ("activation_checkpointing", {"cpu_checkpoint": True}, False),
    ("aio", {"blocksize": 1}, False),
]


@pytest.mark.parametrize(("name", "value", "is_forbidden"), MISSPELT)
def test_misspelt_keys(name, value, is_forbidden):
    assert PLAIN_VALIDATOR.is_valid({name: value}) is not is_forbidden
    assert not STRICT_VALIDATOR.is_valid({name: value})


def test_what_is_no_misspelt_key_passes_even_the_strict_one():
    fine = {
        "$schema": "./deepspeed.schema.json",
        "_comment": "ours",
        "optimizer": {"type": "SGD", "params": {"nesterov": True}},
        "bfloat16": {"enabled": True},
        "zero_optimization": {"stage": "3", "max_live_parameters": 5e8, "prefetch_bucket_size": 1},
    }
    assert not [error.message for error in STRICT_VALIDATOR.iter_errors(fine)]


def test_strict_looks_at_types_where_deepspeed_does_not():
    config = {"wall_clock_breakdown": True, "steps_per_print": "often", "dump_state": "false"}
    assert PLAIN_VALIDATOR.is_valid(config)
    (error,) = STRICT_VALIDATOR.iter_errors(config)
    assert error.json_path == "$.dump_state"


def _configs():
    found = [*(ROOT / "deepspeed_configs").rglob("*.json")]
    return sorted(path for path in found if path.stat().st_size < 10_000)


@pytest.mark.parametrize("path", _configs(), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_configs_that_are_read_without_error_validate(path):
    try:
        found = document.load(str(path))
    except Exception:
        pytest.skip("no config at all")
    _, findings = resolve(found, Workload(), world_size=8, model=None)
    parsing = [f for f in findings if f.severity is Severity.ERROR]
    if not parsing:
        assert not [error.message for error in PLAIN_VALIDATOR.iter_errors(found.values)]
    unknown = {f.key for f in findings if f.code == "unknown-key" and "comment" not in f.message}
    if unknown:
        assert not STRICT_VALIDATOR.is_valid(found.values)


def test_the_command_prints_and_writes_them(capsys, tmp_path):
    assert cli.main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == SCHEMA
    path = tmp_path / "deepspeed.schema.json"
    assert cli.main(["schema", "--strict", "--output", str(path)]) == 0
    assert json.loads(path.read_text()) == STRICT
    capsys.readouterr()
    assert cli.main(["schema", "--answer", "check"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "zero-sizer check"
    assert cli.main(["schema", "--answer", "check", "--strict"]) == 2
    assert cli.main(["schema", "--output", str(tmp_path)]) == 2


def test_a_config_that_names_its_schema_is_no_stranger():
    found = document.from_mapping({"$schema": "./deepspeed.schema.json"})
    _, findings = resolve(found, Workload(), world_size=1, model=None)
    (finding,) = (f for f in findings if f.key == "$schema")
    assert finding.severity is Severity.NOTE
