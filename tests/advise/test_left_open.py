"""Images that nobody stated: how far a job fits, and what is offered to one that does."""

import json
from dataclasses import replace

import pytest
from support.advise_jobs import job_on

from zero_sizer import cli
from zero_sizer.advise import cards
from zero_sizer.advise.fixes import fixes
from zero_sizer.advise.largest import largest_of
from zero_sizer.advise.left_open import as_assumed, is_left_to_data, settled
from zero_sizer.config import document
from zero_sizer.dryrun.engine_errors import engine_error
from zero_sizer.hardware import catalog
from zero_sizer.job.fields import Flags
from zero_sizer.ledger.verdict import Verdict
from zero_sizer.models.feeds.records import Images
from zero_sizer.report import cards as report
from zero_sizer.sizing import size

STAGE_3 = {
    "bf16": {"enabled": True},
    "optimizer": {"type": "AdamW", "params": {"lr": 1e-5}},
    "zero_optimization": {"stage": 3},
}


def job(gpu="h100-80gb", images=None, **workload):
    stated = {"checkpointing": True, "attention": "flash", "seq_len": 2048, "micro_batch": 1}
    found = job_on("llava-1.5-7b", gpu, **{**stated, **workload})
    found = replace(found, document=document.from_mapping(STAGE_3))
    return replace(found, workload=replace(found.workload, images=images))


def test_every_number_that_a_sequence_holds_fits():
    """576 places each, whatever an image's size: 3 in 2,048 tokens, and a fourth is an error."""
    assert is_left_to_data(size(job()))
    found = settled(size(job()))
    assert found.verdict is Verdict.UNCERTAIN  # nobody said how many there are
    (reason,) = found.reasons
    assert "up to 3 images of 336 x 336 a sample, all that 2,048 tokens hold" in reason.message
    assert size(job(images=Images(3))).verdict is Verdict.FITS
    assert not size(job(images=Images(4))).is_valid


@pytest.mark.slow
def test_fewer_fit_than_the_sequence_holds():
    """The words are the verdicts of ``check`` with these numbers stated."""
    asked = {"seq_len": 16384, "micro_batch": 2, "checkpointing": True}
    counts = range(1, 29)
    fitting = [n for n in counts if size(job(**asked, images=Images(n))).verdict is Verdict.FITS]
    found = settled(size(job(**asked)))
    assert found.verdict is Verdict.UNCERTAIN
    assert f"up to {max(fitting)} image" in found.reasons[0].message


def test_no_fix_is_offered_to_a_job_that_fits():
    with_default_length = size(job(seq_len=None))
    assert is_left_to_data(with_default_length)
    assert fixes(with_default_length) == []
    found = settled(with_default_length)
    assert found.verdict is Verdict.UNCERTAIN  # nobody said how long a sequence is
    assert found.reasons[0].message.startswith("it fits with up to 3 images of 336 x 336 a sample")
    assert found.reasons[0].remedy == "give --images"


def test_what_is_stated_is_left_alone():
    found = size(job(images=Images(2)))
    assert settled(found) is found


def test_a_job_too_small_for_text_is_too_small():
    found = settled(size(job("t4", attention="sdpa")))
    assert found.verdict is Verdict.DOES_NOT_FIT


@pytest.mark.slow
def test_the_largest_is_asked_of_what_is_assumed():
    found = largest_of(as_assumed(job()), "micro-batch")
    assert isinstance(found.value, int)
    stated = largest_of(job(images=Images(1)), "micro-batch")
    assert found.value == stated.value > 1


def test_cards_carry_a_model_with_the_image_that_is_assumed():
    """None fits for certain before somebody says how many images there are."""
    [(_, row)] = cards.carriers((catalog.find("h100-80gb"),), Flags(model="llava-1.5-7b"))
    assert row["ZeRO-3"].gpus == 2
    assert row["QLoRA, ZeRO-3"].gpus == 1


def test_cards_say_what_nobody_knows(tmp_path, capsys):
    """A kind of which no profile and no closed form exist is not told to need 512 cards."""
    path = tmp_path / "config.json"
    fields = {"model_type": "swin", "architectures": ["SwinForImageClassification"]}
    path.write_text(json.dumps({**fields, "image_size": 224, "hidden_size": 768}))
    pytest.importorskip("transformers")
    found = cards.cards_of([*map(catalog.find, ("h100-80gb", "l4"))], Flags(model=str(path)))
    rows = found.rows
    assert all(found == cards.UNKNOWN for _, row in rows for found in row.values() if found)
    assert any(found == cards.UNKNOWN for _, row in rows for found in row.values())
    assert found.refusal is None
    report.show_cards(found)
    assert "?: no profile says what" in capsys.readouterr().out


def test_what_deepspeed_runs_nowhere_is_the_first_line_everywhere(tmp_path, capsys):
    """CLIP's logit_scale has no dimensions: no memory helps, and no table says so."""
    config = tmp_path / "ds.json"
    config.write_text(json.dumps({**STAGE_3, "train_micro_batch_size_per_gpu": 1}))
    where = ("--model", "clip-vit-base", "--gpu", "h100-80gb")
    for command in (
        ("choose", str(config), *where, "--largest", "micro-batch"),
        ("choose", str(config), *where),
        ("size", str(config), *where, "--max-nodes", "2"),
    ):
        assert cli.main(command) == 1
        text = capsys.readouterr().out
        assert text.startswith("NOTHING CAN RUN   RuntimeError in deepspeed.initialize"), command
        assert "logit_scale.detach().reshape(1)" in " ".join(text.split())
        assert "nothing fits" not in text
    report.show_cards(cards.cards_of([catalog.find("h100-80gb")], Flags(model="clip-vit-base")))
    assert capsys.readouterr().out.startswith("NOTHING CAN RUN   RuntimeError in deepspeed")
    cli.main(("check", str(config), *where, "--micro-batch", "1", "--seq-len", "64"))
    assert "it would fit, but: RuntimeError in" in capsys.readouterr().out
    assert "reshape(1)" in engine_error("RuntimeError: self.dim() cannot be 0 to view X", {}).remedy


def test_cards_take_what_a_sample_brings():
    said = Flags(model="qwen2-vl-7b", seq_len=1024, images="1,size=224x224")
    few = cards.cards_of([catalog.find("h100-80gb")], said)
    assert few.brings == "1024 tokens with 1 image of 224 x 224"
    many = cards.cards_of([catalog.find("h100-80gb")], Flags(model="qwen2-vl-7b", seq_len=16384))
    of_one, of_other = (found.rows[0][1]["QLoRA, ZeRO-3"].gpu_bytes for found in (few, many))
    assert of_one < of_other
