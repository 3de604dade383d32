"""What the answer says beside its numbers: verdict and validity, headroom, who said what."""

import json
from pathlib import Path

import pytest

from zero_sizer import cli
from zero_sizer.capacity import Capacity, Fit, fit, headroom
from zero_sizer.moments import Moment
from zero_sizer.peak import Peak
from zero_sizer.units import GIB

DEMO = str(Path(__file__).parent.parent / "deepspeed_configs" / "demo.json")
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
    assert (code, text[:6], said["valid"]) == (0, "FITS: ", True)
    code, text, said = answer(capsys, *fine[:-1], "1025")
    assert text.startswith("NOT VALID, 1 error below (it would fit): gpt2")
    assert (code, said["verdict"], said["valid"]) == (1, "fits", False)


def test_what_neither_fits_nor_is_valid_says_both(capsys):
    small = ("--model", "gpt2", "--gpu-memory", "100MiB", "--seq-len", "1025")
    _, text, said = answer(capsys, *small)
    assert "looked for once the errors are mended" in text
    assert said["fixes"] == []
    assert text.startswith("DOES NOT FIT, AND NOT VALID, 1 error below: gpt2")
    assert (said["verdict"], said["valid"]) == ("does_not_fit", False)


@pytest.mark.parametrize(
    ("memory", "verdict"), [("40GiB", "fits"), ("25GiB", "uncertain"), ("20GiB", "does_not_fit")]
)
def test_headroom_and_verdict_agree(capsys, memory, verdict):
    """Both count the most that context and communication take outside PyTorch."""
    arguments = ("--model", "qwen2.5-7b", "--gpus-per-node", "8", "--gpu", "h100-80gb")
    stated = ("--seq-len", "4096", "--checkpointing", "--attention", "flash")
    _, text, said = answer(capsys, *arguments, *stated, "--gpu-memory", memory)
    gpu = said["devices"]["gpu"]
    most = gpu["outside_bytes"]["high"]
    assert said["verdict"] == verdict
    assert gpu["headroom_bytes"] == gpu["capacity_bytes"] - gpu["peak_bytes"] - most
    assert (gpu["headroom_bytes"] >= 0) == (verdict == "fits")
    assert f"{most / GIB:.2f} GiB outside PyTorch" in text
    assert f"{gpu['headroom_bytes'] / GIB:,.2f} GiB" in text


def peak(num_bytes):
    return Peak(num_bytes=num_bytes, moment=Moment.FORWARD)


def test_fit_is_a_headroom_of_at_least_nothing():
    room = Capacity(num_bytes=10, outside_bytes=(1, 3))
    fits = {size: fit(peak(size), room) for size in (7, 8, 9, 10)}
    assert fits == {7: Fit.YES, 8: Fit.UNKNOWN, 9: Fit.UNKNOWN, 10: Fit.NO}
    assert headroom(peak(8), room) == (-1, 1)
    assert headroom(peak(8), Capacity(num_bytes=None)) is None


def test_more_memory_than_the_card_has_is_said(capsys):
    card = ("--model", "gpt2", "--gpu", "a100-40gb", "--seq-len", "512", "--gpu-memory")
    for size, told in (("39GiB", False), ("80GiB", True)):
        _, _, said = answer(capsys, *card, size)
        codes = {f["code"]: f["severity"] for f in said["findings"]}
        assert codes.get("gpu-memory-above-card") == ("warning" if told else None)


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
