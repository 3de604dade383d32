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


def test_no_closed_form_says_what_linear_attention_keeps(ask, monkeypatch, tmp_path):
    """Qwen3-Next's was 30 to 42 % below the simulated engine: nothing fits by it."""
    monkeypatch.setattr(tracing, "find_spec", lambda name: None)
    cluster = ("--nodes", "64", "--gpus-per-node", "8", "--gpu", "h200-141gb")
    code, answer = ask("--model", "qwen3-next-80b-a3b", "--attention", "sdpa", *cluster)
    assert (code, answer["verdict"]) == (3, "uncertain")
    (reason,) = (r for r in answer["reasons"] if r["code"] == "activations-in-closed-form")
    assert "carry a state along the sequence" in reason["message"]
    assert "check traces it" in reason["remedy"]


@pytest.mark.slow
def test_a_class_that_refuses_the_input_is_what_keeps_the_verdict_open(ask):
    """ViT takes the pixels of its config alone: the job would die in its first forward."""
    pytest.importorskip("transformers")
    code, answer = ask("--model", "vit-base", "--gpu", "h100-80gb", "--images", "1,size=384")
    refused = "Input image size (384*384) doesn't match model (224*224)"
    assert code == 3
    assert [reason for reason in answer["reasons"] if refused in reason["remedy"]]
    (found,) = [f for f in answer["findings"] if f["code"] == "not-traced"]
    assert (found["severity"], refused in found["message"]) == ("warning", True)


def test_a_forward_that_raises_for_want_of_tokens_is_not_traced(ask, monkeypatch):
    """4,096 images are 5.6 million tokens, which would be run image by image."""
    monkeypatch.setattr(tracing, "_trace", None)
    code, answer = ask("--model", "qwen2.5-vl-7b", "--gpu", "h100-80gb", "--images", "4096")
    assert code == 1
    assert "images-beyond-sequence" in {finding["code"] for finding in answer["findings"]}


SEES = ("--model", "qwen2.5-vl-3b", "--gpu", "h200-141gb", "--seq-len", "4096", "--images", "2")


@pytest.mark.slow
def test_windows_that_are_visited_one_by_one_are_bounded(ask, monkeypatch):
    """A photograph is 100 windows in every block of Qwen2.5-VL's tower; eager has no family."""
    monkeypatch.setattr(tracing, "_trace", None)
    monkeypatch.setattr(tracing, "_MOST_CALLS", 799)
    _, answer = ask(*SEES, "--attention", "eager")
    (found,) = (f for f in answer["findings"] if f["code"] == "inputs-not-modelled")
    assert "800 in each block of a micro batch" in found["remedy"]  # four samples of two
    assert "--attention flash" in found["remedy"]


@pytest.mark.slow
@pytest.mark.parametrize(("attention", "most"), [("flash", 0), ("sdpa", 0), ("eager", 800)])
def test_few_windows_are_traced_and_a_family_needs_no_trace(ask, monkeypatch, attention, most):
    """Qwen2.5-VL's family knows what flash and sdpa attention keep."""
    pytest.importorskip("transformers")
    traced = []
    monkeypatch.setattr(tracing, "_trace", lambda plan, tell: traced.append(plan.attention))
    monkeypatch.setattr(tracing, "_MOST_CALLS", most)
    ask(*SEES, "--attention", attention)
    assert traced == ([attention] if most else [])
