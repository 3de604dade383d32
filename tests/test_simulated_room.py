"""Whether a run fits its GPU when PyTorch's allocator wastes some of it."""

import published
import pytest

from zero_sizer.plan import Device
from zero_sizer.report import recording as report
from zero_sizer.sizing import size
from zero_sizer.units import GIB, MIB
from zero_sizer.witnesses.recording import Room, from_json
from zero_sizer.witnesses.simulated import run_requests
from zero_sizer.witnesses.simulated.parent import request_of
from zero_sizer.witnesses.simulated.tracker import GPU, Tracker


def test_memory_that_lies_free_in_pieces_is_no_use():
    tracker = Tracker(room_bytes=(60 * MIB, 70 * MIB))
    first = tracker.allocate(GPU, 40 * MIB)
    tracker.free(GPU, first[0], 40 * MIB, first[1])
    tracker.allocate(GPU, 12 * MIB)  # cut from the cached 40: those cannot be given back
    tracker.phase = "backward"
    tracker.allocate(GPU, 30 * MIB)
    tracker.allocate(GPU, 2 * MIB)  # what failed once stays failed
    small, large = (device.room for device in tracker.devices)
    assert large == Room(num_bytes=70 * MIB)
    assert small == Room(
        num_bytes=60 * MIB,
        fits=False,
        phase="backward",
        requested=30 * MIB,
        allocated=12 * MIB,
        reserved=40 * MIB,
    )


@pytest.mark.parametrize(
    ("fits", "said"),
    [
        ((True, True), "the run fits"),
        ((True, False), "the run may not fit"),
        ((False, False), "the run does not fit"),
    ],
)
def test_the_reader_is_told(capsys, fits, said):
    rooms = [Room(num_bytes=(31 - 2 * i) * GIB, fits=f, phase="step") for i, f in enumerate(fits)]
    phase = {"name": "init", "micro_step": 0, "device": {}}
    recording = from_json(
        {
            **{"schema_version": 1, "how": "simulated", "versions": {}, "world_size": 1},
            **{"job": {}, "rank": 0, "phases": [phase]},
            "rooms": [vars(room) for room in rooms],
        }
    )
    report.show(recording)
    out = capsys.readouterr().out
    assert f"PyTorch may take 29.00 GiB to 31.00 GiB of this GPU: {said}, frag" in out
    assert ("expandable_segments" in out) is not all(fits)


@pytest.mark.slow
def test_a_published_job_runs_and_a_larger_batch_runs_out_of_memory():
    """52 billion parameters on V100s: micro batch 12 ran, 14 did not.

    What is live at its highest, 28.7 GiB, would fit 31.7 GiB: the allocator needs 35.
    """
    rows = {row.id: row for row in published.rows()}
    jobs = [published.job_of(rows[f"bs-hf52B-z3-{name}"]) for name in ("YN-mbs12", "Y-mbs14")]
    ran, out_of_memory = run_requests([request_of(job, rank=0, steps=2) for job in jobs])
    assert all(room.fits for room in ran.rooms)
    assert not any(room.fits for room in out_of_memory.rooms)
    room = max(out_of_memory.rooms, key=lambda room: room.num_bytes)
    assert room.phase == "backward"
    assert room.allocated + room.requested < room.num_bytes
    for job, recording in zip(jobs, (ran, out_of_memory), strict=True):
        predicted = size(job).peaks[Device.GPU].num_bytes
        assert predicted == pytest.approx(recording.ranks[0].peak()["gpu"], rel=0.001)
