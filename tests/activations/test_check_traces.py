"""check traces a text model itself where the closed form alone keeps its verdict open."""

import json

import pytest

from zero_sizer import cli
from zero_sizer.questions import profile as tracing

CONFIG = {"train_micro_batch_size_per_gpu": 4, "zero_optimization": {"stage": 1}}
CONFIG |= {"bf16": {"enabled": True}, "optimizer": {"type": "AdamW", "params": {"lr": 1e-4}}}
MODEL = {"model_type": "gptj", "n_layer": 3, "n_embd": 256, "n_head": 4, "vocab_size": 500}
MODEL |= {"rotary_dim": 16, "n_positions": 512}


@pytest.fixture
def ask(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "ds.json").write_text(json.dumps(CONFIG))
    (tmp_path / "gptj.json").write_text(json.dumps(MODEL))

    def check(*arguments):
        said = ("--model", str(tmp_path / "gptj.json"), "--seq-len", "512", "--attention", "eager")
        said = (*said, "--sequences", "equal", "--no-checkpointing", *arguments)
        code = cli.main(["check", str(tmp_path / "ds.json"), *said, "--format", "json"])
        return code, json.loads(capsys.readouterr().out)

    return check


@pytest.mark.slow
def test_a_profile_is_traced_once_and_decides(ask, monkeypatch, tmp_path):
    pytest.importorskip("transformers")
    monkeypatch.setattr(tracing, "find_spec", lambda name: None)
    _, closed = ask("--gpu", "h100-80gb")
    assert closed["verdict"] == "fits"
    need = closed["devices"]["gpu"]
    assert "activations-in-closed-form" in {f["code"] for f in closed["findings"]}
    # between what it takes as predicted and what the closed form's error may add
    memory = ("--gpu-memory", str(need["high_bytes"] - 2**20))
    code, answer = ask(*memory, "--gpu", "h100-80gb")
    assert (code, [r["code"] for r in answer["reasons"]]) == (3, ["activations-in-closed-form"])
    assert "models --profile" in answer["reasons"][0]["remedy"]
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    code, answer = ask(*memory, "--gpu", "h100-80gb")
    assert (code, answer["verdict"]) == (0, "fits")
    assert "activations-in-closed-form" not in {f["code"] for f in answer["findings"]}
    assert list((tmp_path / "cache" / "zero_sizer" / "profiles").glob("*.json"))
    assert need["low_bytes"] <= answer["devices"]["gpu"]["low_bytes"]
    assert answer["devices"]["gpu"]["high_bytes"] <= need["high_bytes"]
