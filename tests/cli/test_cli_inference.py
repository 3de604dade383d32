"""Inference at the command line: cards, the largest batch and context, a dry run."""

import json

import pytest

from zero_sizer import cli
from zero_sizer.advise import inference_cards
from zero_sizer.advise.largest import fits
from zero_sizer.advise.largest_inference import largest_of
from zero_sizer.hardware import catalog
from zero_sizer.job.fields import Flags
from zero_sizer.job.read import without_config

CARDS = {
    # the articles' list for 14 billion parameters
    "a100-40gb": {"16 bits": 1, "int8": 1, "int4": 1},
    "rtx-3090": {"16 bits": 2, "int8": 1, "int4": 1},
    "rtx-4090": {"16 bits": 2, "int8": 1, "int4": 1},
    "rtx-4070-ti": {"16 bits": 4, "int8": None, "int4": 1},
}


@pytest.mark.slow
def test_which_cards_carry_14_billion_parameters():
    gpus = tuple(map(catalog.find, CARDS))
    found = {gpu.name: row for gpu, row in inference_cards.carriers(gpus, "qwen2.5-14b")}
    fewest = {
        name: {way: row[way].gpus if row[way] else None for way in CARDS[name]}
        for name, row in found.items()
    }
    assert fewest == CARDS


def job(**flags):
    values = {"model": "llama-3.2-1b", "gpu": "rtx-3080", "gpus_per_node": 1, "attention": "sdpa"}
    return without_config({}, Flags(task="inference", **values, **flags))


@pytest.mark.parametrize(
    ("what", "flags", "with_value"),
    [
        ("batch-size", {"prompt": 900, "new_tokens": 100}, lambda v: {"batch_size": v}),
        ("seq-len", {"new_tokens": 100, "batch_size": 9}, lambda v: {"prompt": v - 100}),
    ],
)
def test_the_largest_is_the_edge_of_check(what, flags, with_value):
    found = largest_of(job(**flags), what)
    assert fits(job(**{**flags, **with_value(found.value)}))
    assert found.beyond is not None
    assert not fits(job(**{**flags, **with_value(found.beyond[0])}))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["choose", "--task", "inference", "--model", "gpt2"], "--largest"),
        (["choose", "--model", "gpt2", "--largest", "batch-size"], "is about inference"),
        (["choose", "--task", "inference", "--model", "gpt2", "--largest", "lora-rank"], "batch-"),
        (["size", "--task", "inference", "--model", "gpt2"], "inference"),
        (["gpus", "--task", "inference"], "--model"),
        (["check", "--model", "gpt2", "--prompt", "5", "--task", "training"], "CONFIG"),
        (["check", "--model", "gpt2", "--task", "inference", "--micro-batch", "2"], "--batch-size"),
        (["check", "--model", "gpt2", "--task", "inference", "--quantization", "int4"], "nf4"),
        (["dryrun", "--how", "solo", "--model", "gpt2", "--task", "inference"], "simulated"),
    ],
)
def test_what_is_not_there_is_said_in_a_line(capsys, arguments, says):
    assert cli.main(arguments) != 0
    error = capsys.readouterr().err
    assert says in error
    assert "Traceback" not in error


def test_a_dry_run_has_the_phases_of_inference(capsys, tmp_path):
    path = tmp_path / "recording.json"
    arguments = ["--model", "gpt2", "--task", "inference", "--prompt", "20", "--new-tokens", "3"]
    cli.main(["dryrun", "--how", "simulated", *arguments, "--output", str(path)])
    capsys.readouterr()
    recording = json.loads(path.read_text())
    names = [phase["name"] for phase in recording["ranks"][0]["phases"]]
    assert names == ["init", "prefill", "decode"]
