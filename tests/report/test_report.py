"""What the answer says beside its numbers: verdict and validity, headroom, who said what."""

import json
from pathlib import Path

import pytest

from zero_sizer import cli
from zero_sizer.units import GIB

DEMO = str(Path(__file__).parents[2] / "deepspeed_configs" / "demo.json")
LORA = ("--adapter", "r=4,targets=all-linear")


def answer(capsys, *arguments):
    """(exit code, text, JSON) of a check of the demo config."""
    code = cli.main(["check", DEMO, *arguments])
    text = capsys.readouterr().out
    assert cli.main(["check", DEMO, *arguments, "--format", "json"]) == code
    return code, text, json.loads(capsys.readouterr().out)


def test_a_job_that_fits_and_is_refused_is_not_headed_fits(capsys):
    fine = ("--model", "gpt2", "--gpu", "a100-40gb", "--seq-len", "1024")
    code, text, said = answer(capsys, *fine)
    assert (code, text[:7], said["valid"]) == (0, "FITS   ", True)
    code, text, said = answer(capsys, *fine[:-1], "1025")
    assert text.startswith("NOT VALID (1 error below)   it would fit, but: IndexError")
    assert "A step takes" not in text
    assert (code, said["verdict"], said["valid"]) == (1, "fits", False)


def test_what_neither_fits_nor_is_valid_says_both(capsys):
    small = ("--model", "gpt2", "--gpu-memory", "100MiB", "--seq-len", "1025")
    _, text, said = answer(capsys, *small)
    assert "looked for once the errors are corrected" in text
    assert said["fixes"] == []
    assert text.startswith("DOES NOT FIT, NOT VALID (1 error below)   each GPU is ")
    assert (said["verdict"], said["valid"]) == ("does_not_fit", False)


@pytest.mark.parametrize(
    ("memory", "verdict"), [("40GiB", "fits"), ("25GiB", "uncertain"), ("20GiB", "does_not_fit")]
)
def test_headroom_and_verdict_agree(capsys, memory, verdict):
    """Both count the most that the job may need."""
    arguments = ("--model", "qwen2.5-7b", "--gpus-per-node", "8", "--gpu", "h100-80gb")
    stated = ("--seq-len", "4096", "--checkpointing", "--attention", "flash")
    _, text, said = answer(capsys, *arguments, *stated, "--gpu-memory", memory)
    gpu = said["devices"]["gpu"]
    assert said["verdict"] == verdict
    assert gpu["low_bytes"] == gpu["peak_bytes"] + gpu["outside_bytes"]["low"]
    assert gpu["high_bytes"] >= gpu["peak_bytes"] + gpu["outside_bytes"]["high"]
    assert gpu["headroom_bytes"] == gpu["capacity_bytes"] - gpu["high_bytes"]
    assert (gpu["headroom_bytes"] >= 0) == (verdict == "fits")
    assert (gpu["shortfall_bytes"] > 0) == (verdict == "does_not_fit")
    if verdict == "fits":
        assert f"at least {gpu['headroom_bytes'] / GIB:,.2f} GiB of each GPU stay free" in text
    else:
        first = text.partition(f"\nqwen2.5-7b ({7.62}B)")[0]
        assert said["reasons"][0]["message"] in " ".join(first.split())


def test_the_json_keeps_its_contract(capsys):
    """Names that users rely on, in this order."""
    _, _, said = answer(capsys, "--model", "gpt2", "--gpu", "a100-40gb", "--seq-len", "512")
    assert list(said)[:6] == [
        *("schema_version", "zero_sizer", "models_deepspeed", "verdict", "valid", "reasons"),
    ]
    assert set(said["devices"]["gpu"]) >= {
        *("per", "peak_bytes", "peak_phase", "low_bytes", "high_bytes", "reserved_bytes"),
        *("capacity_bytes", "headroom_bytes"),
    }
    reserved = said["devices"]["gpu"]["reserved_bytes"]
    assert reserved["low"] <= reserved["expected"] <= reserved["high"]


def test_more_memory_than_the_card_has_is_said(capsys):
    card = ("--model", "gpt2", "--gpu", "a100-40gb", "--seq-len", "512", "--gpu-memory")
    for size, told in (("39GiB", False), ("80GiB", True)):
        _, _, said = answer(capsys, *card, size)
        codes = {f["code"]: f["severity"] for f in said["findings"]}
        assert codes.get("gpu-memory-above-card") == ("warning" if told else None)


@pytest.mark.parametrize(
    ("size", "read"), [("128GB", "119.21 GiB"), ("128GiB", None), ("128G", None)]
)
def test_how_a_decimal_size_was_read_is_said(capsys, size, read):
    """Memory is sold in GiB: a host of 128 GB has more than 128 x 10^9 bytes."""
    _, text, said = answer(capsys, "--model", "gpt2", "--gpu", "l4", "--host-memory", size)
    told = [f["message"] for f in said["findings"] if f["code"] == "decimal-memory"]
    assert told == ([f"128GB was read as 128 x 10^9 bytes, {read}"] if read else [])
    assert ("write 128GiB [decimal-memory]" in " ".join(text.split())) is bool(read)


def test_a_length_in_thousands_is_a_power_of_two(capsys):
    _, text, said = answer(capsys, "--model", "qwen2.5-0.5b", "--seq-len", "4k")
    assert said["job"]["seq_len"] == {"value": 4096, "origin": "--seq-len"}
    assert "x 4096 tokens" in " ".join(text.split())


@pytest.mark.slow
def test_the_job_names_adapter_and_quantization(capsys):
    _, _, said = answer(capsys, "--model", "gpt2", *LORA, "--quantization", "nf4,double")
    job = said["job"]
    assert (job["adapter"]["value"]["r"], job["adapter"]["origin"]) == (4, "--adapter")
    assert (
        job["quantization"]["value"] | {"bits": 4, "double": True} == job["quantization"]["value"]
    )
    assert job["quantization"]["origin"] == "--quantization"
    _, _, said = answer(capsys, "--model", "gpt2")
    for name in ("adapter", "quantization"):
        assert said["job"][name] == {"value": None, "origin": "not stated"}


def test_a_job_of_an_unknown_optimizer_is_named_too(capsys, tmp_path):
    config = tmp_path / "ds.json"
    config.write_text('{"train_micro_batch_size_per_gpu": 1, "optimizer": {"type": "Adamm"}}')
    cli.main(["check", str(config), "--model", "gpt2", "--format", "json"])
    assert json.loads(capsys.readouterr().out)["job"]["model"]["value"] == "gpt2"


def test_packed_weights_alone_point_at_the_quantization(capsys):
    _, _, said = answer(capsys, "--model", "gpt2", "--quantization", "nf4")
    (found,) = [f for f in said["findings"] if f["code"] == "packed-weights-alone"]
    assert (found["key"], found["line"]) == ("--quantization", 0)


def test_what_is_bundled_is_json_too(capsys):
    assert cli.main(["models", "--format", "json"]) == 0
    models = {row["name"]: row for row in json.loads(capsys.readouterr().out)["models"]}
    assert models["gpt2"]["params"] == 124_439_808
    assert cli.main(["gpus", "--format", "json"]) == 0
    gpus = {row["name"]: row for row in json.loads(capsys.readouterr().out)["gpus"]}
    assert gpus["t4"]["compute_capability"] == [7, 5]
    assert gpus["h100-80gb"]["sources"]


@pytest.mark.parametrize("option", [LORA, ("--quantization", "nf4")])
def test_a_list_of_models_ignores_no_option(capsys, option):
    assert cli.main(["models", *option]) == 2
    assert "add --profile MODEL" in capsys.readouterr().err
