"""Whether a run fits its GPU when PyTorch's allocator wastes some of it."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from support import published

from zero_sizer import cli
from zero_sizer.allocator.room import Room
from zero_sizer.dryrun.answer import answer_of
from zero_sizer.dryrun.recording import from_json
from zero_sizer.dryrun.simulated import run_requests
from zero_sizer.dryrun.simulated.parent import request_of
from zero_sizer.dryrun.verdict import verdict_of
from zero_sizer.hardware.device import Device
from zero_sizer.ledger.verdict import Verdict
from zero_sizer.report import recording as report
from zero_sizer.report.verdict import WORDS
from zero_sizer.simulator.tracker import GPU, Tracker
from zero_sizer.sizing import size
from zero_sizer.units import GIB, MIB

ROOT = Path(__file__).parents[2]


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


def recording_with(fits, job=None):
    rooms = [Room(num_bytes=(31 - 2 * i) * GIB, fits=f, phase="step") for i, f in enumerate(fits)]
    phase = {"name": "init", "micro_step": 0, "device": {"host": {"max_allocated": 3 * GIB}}}
    return from_json(
        {
            **{"schema_version": 1, "how": "simulated", "versions": {}, "world_size": 4},
            **{"job": job or {}, "rank": 0, "phases": [phase]},
            "rooms": [vars(room) for room in rooms],
        }
    )


@pytest.mark.parametrize(
    ("fits", "verdict", "said"),
    [
        ((True, True), Verdict.FITS, "gets along with 29.00 GiB of each GPU, fragmentation"),
        ((True, False), Verdict.UNCERTAIN, "with 29.00 GiB, each GPU runs out of memory in step"),
        ((False, False), Verdict.DOES_NOT_FIT, "each GPU runs out of memory in step"),
    ],
)
def test_the_reader_is_told_first(capsys, fits, verdict, said):
    recording = recording_with(fits)
    assert verdict_of(recording)[0] is verdict
    report.show(answer_of(recording))
    out = " ".join(capsys.readouterr().out.split())
    assert out.startswith(WORDS[verdict])
    assert said in out
    assert ("expandable_segments" in out) is not all(fits)


@pytest.mark.parametrize(
    ("fits", "code"), [((True, True), 0), ((True, False), 3), ((False, False), 1)]
)
def test_the_exit_code_is_the_verdict_s(monkeypatch, tmp_path, fits, code):
    monkeypatch.setattr("zero_sizer.cli.dryrun.record", lambda *_: recording_with(fits))
    path = tmp_path / "ds.json"
    path.write_text('{"train_micro_batch_size_per_gpu": 1}')
    assert cli.main(["dryrun", str(path), "--how", "simulated", "--model", "gpt2"]) == code


@pytest.mark.parametrize(
    ("memory", "verdict"),
    [
        (11, Verdict.DOES_NOT_FIT),  # four ranks hold 12 GiB
        (13, Verdict.DOES_NOT_FIT),  # and their processes 1.5
        (20, Verdict.UNCERTAIN),
        (24, Verdict.FITS),
    ],
)
def test_a_node_has_room_for_the_processes_of_its_ranks(memory, verdict):
    job = {"host_bytes": memory * GIB, "local_world_size": 4}
    found, reasons = verdict_of(recording_with((True, True), job))
    assert found is verdict
    assert [r.device for r in reasons] == ([] if verdict is Verdict.FITS else ["host"])


def test_that_some_layers_fit_says_nothing_of_the_whole_model():
    assert verdict_of(recording_with((True, True), {"layers": 2})) == (None, ())
    assert verdict_of(recording_with((False, False), {"layers": 2}))[0] is Verdict.DOES_NOT_FIT


def test_a_run_without_a_device_of_known_size_has_no_verdict(capsys):
    recording = recording_with(())
    assert verdict_of(recording) == (None, ())
    report.show(answer_of(recording))
    assert capsys.readouterr().out.startswith("simulated run")


@pytest.mark.slow
def test_a_published_job_runs_and_a_larger_batch_runs_out_of_memory(monkeypatch):
    """52 billion parameters on V100s in 2021: micro batch 12 ran, 14 did not.

    What is live at its highest, 29.0 GiB, would fit 31.7 GiB: the allocator wants more. The loss
    of that time is not transformers' own today, so that a factory brings it.
    """
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")]))
    rows = {row.id: row for row in published.rows()}
    jobs = [published.job_of(rows[f"bs-hf52B-z3-{name}"]) for name in ("YN-mbs12", "Y-mbs14")]
    ran, out_of_memory = run_requests([_of_2021(job) for job in jobs])
    assert all(room.fits for room in ran.rooms)
    assert not any(room.fits for room in out_of_memory.rooms)
    room = max(out_of_memory.rooms, key=lambda room: room.num_bytes)
    assert room.phase == "backward"
    assert room.allocated + room.requested < room.num_bytes
    for job, recording in zip(jobs, (ran, out_of_memory), strict=True):
        predicted = size(job).peaks[Device.GPU].num_bytes
        assert predicted == pytest.approx(recording.ranks[0].peak()["gpu"], rel=0.001)


def _of_2021(job):
    asked = request_of(replace(job, workload=replace(job.workload, loss=None)), rank=0, steps=2)
    return replace(asked, hf_config={}, factory="loss_models:gpt2_52b")
