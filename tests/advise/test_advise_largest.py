"""The largest is what ``check`` calls a fit, and the next one is not."""

import json
from dataclasses import replace

import pytest
from support.advise_jobs import job_on

from zero_sizer import cli, sizing
from zero_sizer.advise.cards import COUNTS, cards_of, carriers
from zero_sizer.advise.largest import bisect, fits, largest_of
from zero_sizer.config import document
from zero_sizer.hardware import catalog
from zero_sizer.job.fields import Flags
from zero_sizer.report import cards
from zero_sizer.sizing import Verdict
from zero_sizer.units import format_gib


@pytest.mark.parametrize("edge", [0, 1, 2, 7, 63, 100])
def test_bisection_finds_the_edge(edge):
    assert bisect(lambda number: number <= edge, 100) == edge


def with_micro_batch(job, value):
    values = {**job.document.values, "train_micro_batch_size_per_gpu": value}
    return replace(job, document=document.from_mapping(values))


@pytest.mark.slow
@pytest.mark.parametrize(("gpu", "gpus"), [("rtx-3090", 2), ("a100-40gb", 8)])
def test_the_largest_micro_batch_is_the_edge_of_check(gpu, gpus):
    found = largest_of(job_on("llama-3.2-1b", gpu, gpus=gpus, host_memory="128GiB"), "micro-batch")
    job = found.sizing.job
    assert found.sizing.verdict is Verdict.FITS
    walked = 1
    while fits(with_micro_batch(job, walked + 1)):
        walked += 1
    assert found.value == walked
    assert found.beyond == (walked + 1, sizing.size(with_micro_batch(job, walked + 1)).verdict)


def test_the_longest_sequence_is_the_edge_of_check():
    found = largest_of(job_on("llama-3.2-1b", "rtx-3090", gpus=1), "seq-len")
    job = found.sizing.job
    for tokens in (found.value, found.value + 128):
        workload = replace(job.workload, seq_len=tokens)
        verdict = sizing.size(replace(job, workload=workload)).verdict
        assert (verdict is Verdict.FITS) == (tokens == found.value)


def test_a_sequence_is_no_longer_than_the_model_takes():
    found = largest_of(job_on("gpt2", "h200-141gb", gpus=1, seq_len=1024), "seq-len")
    assert found.value == 1024
    assert "1024 positions" in found.limit


@pytest.mark.slow
def test_the_largest_rank_is_the_edge_of_check(capsys):
    asked = ["--model", "llama-3.2-1b", "--gpu", "t4", "--host-memory", "16GiB"]
    asked += ["--seq-len", "512", "--no-checkpointing"]
    assert cli.main(["choose", *asked, "--largest", "lora-rank", "--format", "json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["largest"] > 16
    assert answer["beyond"]["value"] == answer["largest"] + 1
    assert answer["beyond"]["verdict"] != "fits"


@pytest.mark.slow
def test_the_largest_model_fits_and_the_next_does_not(capsys):
    cluster = ["--gpu", "rtx-3090", "--gpus-per-node", "2", "--host-memory", "64GiB"]
    asked = ["choose", "--model", "gpt2", *cluster, "--seq-len", "1024", "--largest", "model"]
    assert cli.main([*asked, "--format", "json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    for name, code in ((answer["largest"], {0}), (answer["beyond"]["value"], {1, 3})):
        asked = ["choose", "--model", name, *cluster, "--seq-len", "1024", "--format", "json"]
        assert cli.main(asked) in code
        capsys.readouterr()


def test_nothing_fits_is_said(capsys):
    none = ["--model", "llama-3-70b", "--gpu", "t4", "--host-memory", "8GiB", "--seq-len", "512"]
    assert cli.main(["choose", *none, "--largest", "micro-batch"]) == 1
    assert "NOTHING FITS" in capsys.readouterr().out


@pytest.mark.slow
def test_how_many_cards_carry_a_model():
    """Twice the memory never takes more cards, and one card fewer (half) does not do."""
    both = tuple(map(catalog.find, ("a100-40gb", "a100-80gb")))
    small, large = (found for _, found in carriers(both, Flags(model="llama-3-8b", seq_len=1024)))
    for way, enough in small.items():
        assert enough.gpus in COUNTS
        assert large[way].gpus <= enough.gpus
    whole = small["ZeRO-3"]
    # 16 bytes of states an element over the cards: half of them could not even hold those
    states = 16 * 8.03e9
    assert states / whole.gpus < 40 * 2**30 < 1.4 * states / (whole.gpus / 2)
    assert small["ZeRO-3, all on host"].gpus == 1
    assert small["QLoRA, ZeRO-3"].gpu_bytes < small["LoRA, ZeRO-3"].gpu_bytes


@pytest.mark.slow
def test_why_packed_weights_take_more_cards_is_said_where_they_do():
    """The codes of every linear layer are whole on each GPU at stage 3."""
    small, large = (
        cards_of((catalog.find(name),), Flags(model="llama-3-8b", seq_len=1024))
        for name in ("rtx-3070", "h100-80gb")
    )
    linear = 32 * 4096 * (2 * 4096 + 2 * 1024 + 3 * 14336)
    assert small.packed_bytes == linear // 2
    (_, row) = small.rows[0]
    assert row["LoRA, ZeRO-3"].gpus > 1
    assert row["QLoRA, ZeRO-3"] is None
    (note,) = cards.notes(small)
    assert format_gib(linear // 2) in note
    assert cards.notes(large) == []
