"""The verdict where length, checkpointing, attention, precision or GPUs were not stated."""

import json

import pytest
from ledger.test_verdict import BF16, OFFLOAD, ask, codes

from zero_sizer import cli

BATCH_4 = BF16 | {"train_micro_batch_size_per_gpu": 4, "zero_optimization": {"stage": 2}}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("gpu", "said", "verdict", "reasons"),
    [
        ("a100-80gb", "", "uncertain", ["assumed-seq-len", "assumed-checkpointing"]),
        ("a100-80gb", "--checkpointing", "fits", []),
        ("a100-80gb", "--seq-len 2048", "uncertain", ["assumed-checkpointing"]),
        ("a100-80gb", "--no-checkpointing", "uncertain", ["assumed-seq-len"]),
        ("a100-80gb", "--seq-len 2048 --no-checkpointing", "does_not_fit", ["gpu-too-small"]),
        ("rtx-3090", "", "does_not_fit", ["gpu-too-small"]),  # the step alone is too large
    ],
)
def test_an_assumption_is_no_ground_unless_its_cheapest_reading_is_too_large_too(
    tmp_path, capsys, gpu, said, verdict, reasons
):
    cluster = ("--model", "llama-3-8b", "--gpus-per-node", "8", "--gpu", gpu)
    _, answer = ask(tmp_path, capsys, BATCH_4, *cluster, *said.split())
    assert (answer["verdict"], codes(answer)) == (verdict, reasons)
    device = answer["devices"]["gpu"]
    if verdict == "uncertain":
        assert device["low_bytes"] < device["capacity_bytes"] < device["peak_bytes"]
        assert "GiB short, in backward" in answer["reasons"][0]["message"]
        assert answer["reasons"][0]["remedy"].startswith("give --")
    if gpu == "rtx-3090":
        asked = ("--seq-len", "1", "--checkpointing", "--attention", "sdpa")
        _, least = ask(tmp_path, capsys, BATCH_4, *cluster, *asked)
        assert device["low_bytes"] == least["devices"]["gpu"]["low_bytes"]
        tail = "even with the shortest sequence and activation checkpointing"
        assert answer["reasons"][0]["message"].endswith(tail)


def test_eager_attention_is_an_assumption_where_the_model_has_flash(tmp_path, capsys):
    said = ("--gpus-per-node", "8", "--gpu", "a100-40gb", "--seq-len", "8192", "--checkpointing")
    config = BF16 | {"zero_optimization": {"stage": 2}}
    _, answer = ask(tmp_path, capsys, config, "--model", "gemma-2-2b", *said)
    assert answer["verdict"] == "uncertain"
    assert "assumed-attention" in codes(answer)


def test_the_first_line_names_what_it_rests_on(tmp_path, capsys):
    (tmp_path / "ds.json").write_text(json.dumps(BATCH_4))
    asked = ["check", str(tmp_path / "ds.json"), "--gpu", "rtx-3090", "--model"]
    cli.main([*asked, "gpt2"])
    first = " ".join(capsys.readouterr().out.split("\ngpt2")[0].split())
    assert first.startswith("FITS")
    assert first.endswith("with the 1024 tokens that are assumed (--seq-len)")
    cli.main([*asked, "llama-3-8b"])
    first = " ".join(capsys.readouterr().out.split("\nllama")[0].split())
    assert first.startswith("DOES NOT FIT")
    assert first.endswith("one GPU is counted: give --gpus-per-node if there are more")


def test_a_precision_that_is_left_to_the_trainer_is_an_assumption_on_every_device(tmp_path, capsys):
    both = OFFLOAD | {"offload_param": {"device": "cpu"}}
    config = BF16 | {"bf16": {"enabled": "auto"}, "zero_optimization": both}
    said = ("--model", "qwen2.5-72b", "--gpus-per-node", "8", "--gpu", "a100-80gb", "--seq-len")
    said = (*said, "2048", "--checkpointing", "--host-memory", "2TB")
    _, answer = ask(tmp_path, capsys, config, *said)
    assert (answer["verdict"], codes(answer)) == ("uncertain", ["assumed-precision"])
    assert answer["reasons"][0]["remedy"] == "give --precision bf16, fp16 or fp32"
    for precision, verdict in (("fp32", "does_not_fit"), ("bf16", "fits")):
        _, answer = ask(tmp_path, capsys, config, *said, "--precision", precision)
        assert answer["verdict"] == verdict
