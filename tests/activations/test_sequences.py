"""Padded and packed sequences: what masks cost, and where that is not known."""

import json

import pytest

from zero_sizer.cli import main

B, S = 2, 1000


def _check(capsys, tmp_path, *, model="llama-3-8b", **workload):
    path = tmp_path / "job.yaml"
    config = {
        "train_micro_batch_size_per_gpu": B,
        "bf16": {"enabled": True},
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-4}},
        "zero_optimization": {"stage": 2},
    }
    said = {"seq_len": S, "checkpointing": False, "attention": "sdpa", **workload}
    cluster = {"gpus_per_node": 8, "gpu": "h200-141gb", "host_memory": "2TiB"}
    path.write_text(
        json.dumps({"model": model, "deepspeed": config, "cluster": cluster, "workload": said})
    )
    main(["check", str(path), "--format", "json"])
    answer = json.loads(capsys.readouterr().out)
    return answer["phases"]["gpu"], {f["code"] for f in answer["findings"]}, answer["verdict"]


def test_a_mask_costs_sdpa_a_bias_and_repeated_heads_in_every_block(capsys, tmp_path):
    equal, padded, packed = (
        _check(capsys, tmp_path, sequences=kind)[0] for kind in ("equal", "padded", "packed")
    )
    bias = B * S * S * 2
    repeated = 2 * (32 - 8) * 128 * B * S * 2  # keys and values of 24 more heads
    assert padded["backward"] - equal["backward"] == 32 * (bias + repeated)
    assert packed == padded


def test_recomputed_blocks_pay_it_once(capsys, tmp_path):
    equal, padded = (
        _check(capsys, tmp_path, sequences=kind, checkpointing=True)[0]
        for kind in ("equal", "padded")
    )
    assert padded["forward"] - equal["forward"] == B * S * S  # the boolean mask


@pytest.mark.slow
@pytest.mark.parametrize(
    ("attention", "kind"), [("eager", "padded"), ("eager", "packed"), ("flash", "packed")]
)
def test_eager_and_packed_flash_cost_nothing_more(capsys, tmp_path, attention, kind):
    equal, *_ = _check(capsys, tmp_path, attention=attention, sequences="equal")
    other, findings, _ = _check(capsys, tmp_path, attention=attention, sequences=kind)
    assert other == equal
    assert "sequences-not-modelled" not in findings


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "attention", "kind"),
    [
        ("phi-2", "flash", "padded"),
        ("gemma-2b", "sdpa", "padded"),
        ("t5-3b", "eager", "padded"),
        ("bert-large", "eager", "padded"),
        ("phi-3-mini", "sdpa", "packed"),
    ],
)
def test_where_it_is_not_known_nobody_says_that_it_fits(capsys, tmp_path, model, attention, kind):
    workload = {"seq_len": 500, "attention": attention, "micro_batch": 1}
    *_, fits = _check(capsys, tmp_path, model=model, **workload, sequences="equal")
    assert fits == "fits"
    _, findings, verdict = _check(capsys, tmp_path, model=model, **workload, sequences=kind)
    assert "sequences-not-modelled" in findings
    assert verdict == "uncertain"


def test_padded_flash_keeps_one_more_output_a_block(capsys, tmp_path):
    equal, padded = (
        _check(capsys, tmp_path, attention="flash", sequences=kind) for kind in ("equal", "padded")
    )
    outputs = 32 * (B * S * 32 * 128 * 2 + B * S * 8)
    assert padded[0]["backward"] - equal[0]["backward"] == outputs
    assert "padding-counted-in-full" in padded[1] - equal[1]


def test_equal_lengths_are_assumed_aloud_where_they_matter(capsys, tmp_path):
    assert "assumed-sequences" in _check(capsys, tmp_path)[1]
    assert "assumed-sequences" not in _check(capsys, tmp_path, attention="flash")[1]
    assert "assumed-sequences" not in _check(capsys, tmp_path, sequences="equal")[1]


def test_a_window_of_attention_already_has_its_mask(capsys, tmp_path):
    long = {"model": "mistral-7b", "seq_len": 4608, "micro_batch": 1, "checkpointing": True}
    assert "sequences-not-modelled" in _check(capsys, tmp_path, **long, sequences="padded")[1]
