"""Rules of thumb give the figures that are published for them, and stand beside the ledger."""

import json

import pytest
from support.plans import make_job

from zero_sizer import cli, models
from zero_sizer.crosscheck import compare, rules
from zero_sizer.crosscheck.rules.record import (
    Numbers,
    attention_bytes,
    korthikanti_bytes,
    layer_bytes,
    mlp_bytes,
    sample_bytes,
)
from zero_sizer.job.fields import Flags
from zero_sizer.job.read import without_config
from zero_sizer.sizing import size

B = 10**9
FIGURES = [  # rule, billions of parameters, bytes of a weight, published GB
    ("weights in fp32", 7, 4, "28"),
    ("weights in fp16 or bf16", 7, 2, "14"),
    ("weights in int8", 7, 1, "7"),
    ("weights in int4", 7, 1, "3.5"),
    ("weights in fp32", 14, 4, "56"),
    ("weights in fp16 or bf16", 14, 2, "28"),
    ("weights in int8", 14, 1, "14"),
    ("weights in int4", 14, 1, "7"),
    ("weights in fp16 or bf16", 13, 2, "26"),
    ("weights in fp16 or bf16", 65, 2, "130"),
    ("gradients like weights", 7, 2, "14"),
    ("gradients like weights", 7, 4, "28"),
    ("Adam states", 7, 2, "84"),
    ("full fine-tuning, 12 GB per billion", 14, 2, "168"),
    ("inference in fp16", 14, 2, "33.6"),
    ("inference in int8", 14, 1, "16.8"),
    ("inference in int4", 14, 1, "8.4"),
]


def printed(num_bytes: float, like: str) -> str:
    """GB with as many decimals as the published figure."""
    return f"{num_bytes / B:.{len(like.partition('.')[2])}f}"


@pytest.mark.parametrize(("name", "billions", "weight_bytes", "figure"), FIGURES)
def test_published_figures_to_the_printed_digit(name, billions, weight_bytes, figure):
    numbers = Numbers(params=billions * B, weight_bytes=weight_bytes)
    assert printed(rules.by_name(name).formula(numbers), figure) == figure


def test_lora_and_inference_are_ranges():
    numbers = Numbers(params=14 * B)
    lora, inference = rules.by_name("LoRA"), rules.by_name("inference in fp16")
    ends = (lora.formula(numbers), lora.highest(numbers))
    assert [printed(end, "0") for end in ends] == ["50", "60"]
    assert inference.highest(numbers) == pytest.approx(1.3 * 28 * B)


def test_bytes_per_parameter_are_sums_of_what_they_name():
    """16 = 2+2+12, 20 = (2+4)+(2+4)+8, 24 = (4+4)+(4+4)+8; ratios count copies of the weights."""
    per_param = {
        16: 2 + 2 + 12,
        20: (2 + 4) + (2 + 4) + 8,
        24: (4 + 4) + (4 + 4) + 8,
    }
    for number, parts in per_param.items():
        assert rules.by_name(f"{number} bytes a parameter").formula(Numbers(params=1)) == parts
    ratios = {0: 2, 1: 3, 2: 4, 3: 5}
    for optimizer, copies in ratios.items():
        formula = rules.by_name(f"ratio 1:1:{optimizer}").formula
        assert formula(Numbers(params=1, weight_bytes=4)) == 4 * copies


def test_zero_divides_sixteen_bytes_by_4_8_and_n():
    numbers = Numbers(params=7 * B, ranks=64)
    names = ("ZeRO-1: / 4", "ZeRO-2: / 8", "ZeRO-3: / N")
    found = [rules.by_name(name).formula(numbers) for name in names]
    assert found == [16 * 7 * B / 4, 16 * 7 * B / 8, 16 * 7 * B / 64]


def test_attention_terms_add_up_to_11bsd_5bhs2():
    """Term by term as published, and the layer's 30bsd + 5bhs^2, 34 with two norms."""
    n = Numbers(params=0, micro_batch=3, seq_len=7, hidden=10, heads=5)
    bsd, bhs2 = 3 * 7 * 10, 3 * 5 * 7 * 7
    attention = [2 * bsd, 4 * bsd, 2 * bhs2, bhs2, 2 * bhs2 + 2 * bsd, 2 * bsd, bsd]
    mlp = [2 * bsd, 8 * bsd, 8 * bsd, bsd]
    assert attention_bytes(n) == sum(attention) == 11 * bsd + 5 * bhs2
    assert mlp_bytes(n) == sum(mlp) == 19 * bsd
    assert layer_bytes(n) == 30 * bsd + 5 * bhs2
    # arXiv:2205.05198 equation 1: sbh(34 + 5as/h), with a for heads and h for the width
    assert korthikanti_bytes(n) == bsd * (34 + 5 * 5 * 7 / 10)


def test_one_activation_of_512_cubed():
    """Published: 134 MB, and 4.2 GB for 32 samples (4.29, cut off)."""
    assert round(sample_bytes((512, 512, 512)) / 10**6) == 134
    assert int(10 * sample_bytes((512, 512, 512), samples=32) / B) / 10 == 4.2


def sized(stage, *, checkpointing=False, ranks=8, model="gpt2"):
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "optimizer": {"type": "AdamW"},
        "zero_optimization": {"stage": stage},
        "bf16": {"enabled": True},
    }
    job = make_job(config, models.load(model), ranks, seq_len=128, checkpointing=checkpointing)
    return job, size(job)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_only_rules_about_the_job_answer(stage, checkpointing):
    _, sizing = sized(stage, checkpointing=checkpointing)
    names = {answer.rule.name for answer in rules.answers(sizing)}
    assert {n for n in names if n.startswith("ZeRO")} == {
        n for n in names if n.startswith(f"ZeRO-{stage}")
    }
    assert ("full recomputation, 2sbh" in names) is checkpointing
    assert ("sbh(34 + 5as/h)" in names) is not checkpointing
    assert "weights in fp32" not in names
    assert "LoRA" not in names


def test_where_a_rule_is_right_the_ledger_agrees():
    """Stage 0 in bf16, nothing tied: weights once, gradients once, 12 bytes of Adam."""
    _, sizing = sized(0, ranks=1, model="llama-2-7b")
    by_name = {answer.rule.name: answer for answer in rules.answers(sizing)}
    for name in ("weights in fp16 or bf16", "gradients like weights", "Adam states"):
        assert by_name[name].ledger == by_name[name].low


def test_every_rule_says_where_it_is_from_and_why_it_differs():
    assert len({rule.name for rule in rules.RULES}) == len(rules.RULES)
    for rule in rules.RULES:
        assert rule.why, rule.name
        assert rule.source, rule.name
        assert "\n" not in rule.why


def test_crosscheck_shows_a_row_and_a_reason_for_each_rule():
    job, sizing = sized(3)
    check = compare.against_rules(job)
    found = rules.answers(sizing)
    assert {row.phase for row in check.rows} == {answer.rule.name for answer in found}
    assert len(check.notes) == len(found)
    ranges = [answer for answer in found if answer.low != answer.high]
    assert len(check.rows) == len(found) + len(ranges)


def test_command_line(tmp_path, capsys):
    config = tmp_path / "ds.json"
    config.write_text(json.dumps({"bf16": {"enabled": True}, "train_batch_size": 8}))
    command = ["crosscheck", str(config), "--model", "gpt2", "--gpus-per-node", "8"]
    assert cli.main([*command, "--with", "rules", "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    adam = next(row for row in rows if row["phase"] == "16 bytes a parameter")
    assert adam["witnessed"] == 16 * models.load("gpt2").num_params


def about_14b(**flags):
    values = {"model": "qwen2.5-14b", "attention": "sdpa", "prompt": 1792, "new_tokens": 256}
    sizing = size(without_config({}, Flags(task="inference", batch_size=1, **values, **flags)))
    return {answer.rule.name: answer for answer in rules.answers(sizing)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "weights", "factor"),
    [
        ({"precision": "fp32"}, "weights in fp32", "inference in fp32"),
        ({"precision": "bf16"}, "weights in fp16 or bf16", "inference in fp16"),
        ({"quantization": "int8"}, "weights in int8", "inference in int8"),
        ({"quantization": "awq"}, "weights in int4", "inference in int4"),
    ],
)
def test_rules_about_inference_answer_by_the_bits_of_the_weights(flags, weights, factor):
    found = about_14b(**flags)
    assert set(found) == {weights, factor, "KV cache", "CUDA context"}
    if "precision" in flags:
        assert found[weights].ledger == found[weights].low
    else:
        assert found[weights].ledger > found[weights].low, "embedding and head are not packed"


def test_the_rule_of_the_cache_counts_every_head_and_the_last_token():
    found = about_14b(precision="fp16")["KV cache"]
    heads, of_keys, tokens = 40, 8, 1792 + 256
    assert found.low == 2 * 48 * 5120 * tokens * 2
    assert found.ledger * heads * tokens == found.low * of_keys * (tokens - 1)


def test_inference_is_laid_beside_rules_alone(capsys):
    command = ["crosscheck", "--task", "inference", "--model", "gpt2"]
    assert cli.main([*command, "--with", "rules"]) == 0
    assert "KV cache" in capsys.readouterr().out
    assert cli.main([*command, "--with", "helpers"]) == 2
    assert "--with rules" in capsys.readouterr().err
