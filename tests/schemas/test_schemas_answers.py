"""Every JSON answer is what its schema says, and nothing in it is undescribed."""

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from support.answers import CONFIG, JOB, TOO_LARGE, as_flags, closed

from zero_sizer import cli
from zero_sizer.schemas import answer_schema, answers

ROOT = Path(__file__).parents[2]
INVALID = sorted((ROOT / "deepspeed_configs" / "invalid").glob("*/*.json"))


@pytest.fixture
def printed(tmp_path, capsys):
    (tmp_path / "ds.json").write_text(json.dumps(CONFIG))

    def ask(command, *words):
        argv = [str(tmp_path / "ds.json") if word == "CONFIG" else word for word in words]
        cli.main([command, *argv, "--format", "json"])
        return json.loads(capsys.readouterr().out)

    return ask


@pytest.mark.parametrize("name", answers())
def test_a_schema_is_one(name):
    schema = answer_schema(name)
    Draft202012Validator.check_schema(schema)
    assert "schema_version" in schema["required"]
    assert {"description", "properties"} <= schema.keys()


def errors(name, document):
    return [
        f"{error.json_path}: {error.message[:200]}"
        for error in Draft202012Validator(closed(name)).iter_errors(document)
    ]


CASES = {
    "check, fits": ("check", "check", "CONFIG", *as_flags(JOB)),
    "check, does not fit": ("check", "check", "CONFIG", *as_flags(TOO_LARGE)),
    "check, no GPU": ("check", "check", "CONFIG", "--model", "gpt2"),
    "check, timeline": ("check", "check", "CONFIG", *as_flags(JOB), "--timeline"),
    "check, a run": ("check", "check", "CONFIG", *as_flags(JOB), "--tokens", "1B"),
    "choose": ("choose", "choose", *as_flags(JOB)),
    "choose, a run": ("choose", "choose", *as_flags(JOB), "--tokens", "1B", "--target-days", "9"),
    "choose, started": ("choose", "choose", *as_flags(JOB), "--emit-launch", "torchrun"),
    "largest": ("largest", "choose", *as_flags(JOB), "--largest", "micro-batch"),
    "largest, none": ("largest", "choose", *as_flags(TOO_LARGE), "--largest", "micro-batch"),
    "size": ("size", "size", *as_flags(JOB), "--max-nodes", "2"),
    "gpus": ("gpus", "gpus"),
    "models": ("models", "models"),
    "rules": ("crosscheck", "crosscheck", "CONFIG", *as_flags(JOB), "--with", "rules"),
}


LONG = {
    "choose, nothing": ("choose", "choose", *as_flags(TOO_LARGE)),
    "size, missed": (
        *("size", "size", *as_flags(JOB), "--max-nodes", "2"),
        *("--tokens", "1T", "--target-days", "1"),
    ),
    "carriers": ("carriers", "gpus", "--model", "gpt2"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", LONG)
def test_a_long_answer_is_what_its_schema_says(case, printed):
    name, *words = LONG[case]
    assert not errors(name, printed(*words))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_an_answer_is_what_its_schema_says(case, printed):
    name, *words = CASES[case]
    assert not errors(name, printed(*words))


@pytest.mark.slow
def test_a_recording_is_what_its_schema_says(printed, tmp_path):
    pytest.importorskip("deepspeed")
    path = tmp_path / "recording.json"
    words = ("CONFIG", *as_flags(JOB), "--how", "simulated", "--layers", "1", "--rank", "worst")
    shown = printed("dryrun", *words, "--output", str(path))
    assert not errors("recording", shown)
    assert not errors("recording", json.loads(path.read_text()))
    compared = printed("crosscheck", "CONFIG", *as_flags(JOB), "--recording", str(path))
    assert not errors("crosscheck", compared)


def test_what_a_schema_does_not_describe_is_refused():
    """The tests above would see a new key, a missing one, and bytes that are no integer."""
    row = {"name": "x", "params": 1, "layers": 1, "hidden": 1, "source": ""}
    assert not errors("models", {"schema_version": 1, "models": [row]})
    for other in ({**row, "more": 1}, {**row, "params": 1.5}, {"name": "x"}):
        assert errors("models", {"schema_version": 1, "models": [other]})
    assert errors("models", {"schema_version": 2, "models": []})


@pytest.mark.slow
@pytest.mark.parametrize("path", INVALID[::6], ids=lambda path: path.parent.name)
def test_answers_about_broken_configs_are_what_the_schema_says(path, capsys):
    cli.main(["check", str(path), "--model", "gpt2", "--gpu", "l4", "--format", "json"])
    out = capsys.readouterr().out
    assert not out or not errors("check", json.loads(out))
