"""The note on PyTorch's holes: a GPU has room for the peak, and less than some jobs wanted."""

import pytest

from zero_sizer.hardware.device import Device
from zero_sizer.job.fields import Flags
from zero_sizer.job.read import without_config
from zero_sizer.ledger.fragmentation import NEEDED
from zero_sizer.ledger.verdict import Verdict
from zero_sizer.sizing import size
from zero_sizer.units import GIB

CONFIG = {
    "bf16": {"enabled": True},
    "optimizer": {"type": "AdamW"},
    "zero_optimization": {"stage": 3},
    "train_micro_batch_size_per_gpu": 1,
}


def sized(gib):
    flags = Flags(
        model="llama-3.2-1b",
        gpus_per_node=8,
        gpu_memory=f"{gib}GiB",
        seq_len=2048,
        checkpointing=True,
        attention="flash",
    )
    return size(without_config(CONFIG, flags))


def notes(sizing):
    return [finding.message for finding in sizing.findings if finding.code == "fragmentation"]


@pytest.fixture(scope="module")
def peak():
    return sized(80).peaks[Device.GPU].num_bytes / GIB


def test_a_gpu_with_room_for_every_job_that_was_replayed_has_no_note(peak):
    assert notes(sized(peak * (1 + NEEDED[1]) + 4)) == []


def test_a_gpu_that_fits_the_peak_and_not_the_holes_has_one(peak):
    found = sized(peak * 1.2 + 2)
    assert found.verdict is Verdict.FITS
    (message,) = notes(found)
    assert f"{peak * NEEDED[1]:.2f} GiB" in message


def test_a_verdict_that_is_open_says_it_itself(peak):
    found = sized(peak + 1)
    assert found.verdict is Verdict.UNCERTAIN
    assert notes(found) == []
