"""Images that were counted, and what is still open about them: their size, and packed rows."""

import pytest

from zero_sizer.findings import Direction
from zero_sizer.job.fields import Flags
from zero_sizer.job.read import read
from zero_sizer.ledger.verdict import Verdict
from zero_sizer.sizing import size

CONFIG = {
    "bf16": {"enabled": True},
    "optimizer": {"type": "AdamW", "params": {"lr": 1e-5}},
    "zero_optimization": {"stage": 3},
    "train_micro_batch_size_per_gpu": 1,
}
HERE = {"model": "qwen2.5-vl-3b", "gpu": "h100-80gb", "gpus_per_node": 8, "host_memory": "1TiB"}
HERE |= {"seq_len": 8192, "attention": "flash", "checkpointing": True}


def asked(**said):
    found = size(read(CONFIG, Flags(**{**HERE, "sequences": "equal", **said})))
    return found, {finding.code: finding for finding in found.findings}


def test_larger_images_than_are_assumed_keep_the_verdict_open():
    """MAX_PIXELS=5017600 of ms-swift's users: 2240 x 2240 does not fit where 1036 x 1036 does."""
    found, codes = asked(images="1", max_pixels=5_017_600, checkpointing=False)
    assert found.verdict is Verdict.UNCERTAIN
    assert codes["assumed-image-size"].direction is Direction.COST
    assert "5,017,600 pixels" in found.reasons[0].message
    stated, codes = asked(images="1,size=2240x2240", max_pixels=5_017_600, checkpointing=False)
    assert stated.verdict is Verdict.DOES_NOT_FIT
    assert "assumed-image-size" not in codes


@pytest.mark.parametrize(
    ("said", "is_told"),
    [
        ({"images": "2"}, True),
        ({"images": "2", "max_pixels": 500_000}, False),
        ({"images": "2,size=448x672"}, False),
    ],
)
def test_a_size_that_nobody_stated_is_told(said, is_told):
    found, codes = asked(**said)
    assert ("assumed-image-size" in codes) is is_told
    assert "input-not-taken" not in codes
    assert found.verdict is Verdict.FITS


def test_images_of_packed_rows_are_those_of_all_samples():
    _, codes = asked(images="1,size=448x672", sequences="packed")
    assert "images-of-packed-rows" in codes
    _, codes = asked(images="1,size=448x672")
    assert "images-of-packed-rows" not in codes


def test_captions_have_as_many_places_as_the_table():
    """transformers raises at 65 tokens of SigLIP, whose table has 64."""
    said = {"model": "google/siglip-so400m-patch14-384", "attention": "sdpa"}
    for seq_len, is_valid in ((64, True), (65, False)):
        found, codes = asked(**said, seq_len=seq_len)
        assert found.is_valid is is_valid
        assert ("sequence-too-long" in codes) is not is_valid
