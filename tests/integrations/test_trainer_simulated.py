"""The Trainer's callback on a GPU, which is simulated: what it reads is what the engine holds."""

from pathlib import Path

import pytest
from support.script_runs import run_scripts

from zero_sizer.crosscheck import compare
from zero_sizer.dryrun import recording, to_job
from zero_sizer.errors import InputError
from zero_sizer.questions.calibrate import calibrate

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[1] / "data" / "scripts" / "watched.py"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The simulated engine's own recording, the callback's, and that of the misled one."""
    folder = tmp_path_factory.mktemp("watched")
    start = ("torchrun", "--nnodes", "2", "--nproc-per-node", "4", SCRIPT)
    lines = {"memory": (), "misled": ("16",)}
    engines = run_scripts(
        folder,
        {
            name: ([*start, f"{name}.json", *words], {"rank": 5, "steps": 4})
            for name, words in lines.items()
        },
    )
    files = [folder / f"{name}.rank5.json" for name in lines]
    return engines["memory"], *map(recording.read, files), files[0]


def test_every_phase_has_the_peak_that_the_engine_reached(run):
    engine, watched, *_ = run
    held = {
        (phase.step, phase.micro_step, phase.name): phase.device["gpu"]
        for phase in engine.first.phases
    }
    seen = {
        (phase.step, phase.micro_step, phase.name): phase.device["gpu"]["max_allocated"]
        for phase in watched.first.phases
        if phase.step < 2
    }
    assert {key[2] for key in seen} == {"init", "forward", "backward", "step"}
    assert seen == {key: held[key]["max_allocated"] for key in seen}


def test_the_prediction_at_the_start_is_the_runs_peak(run):
    _, watched, *_ = run
    job = to_job.job_of(watched)
    rows = compare.against_recording(compare.recorded_job(job, watched), watched).rows
    states = [row for row in rows if row.quantity == "model states"]
    assert len(states) >= 2
    assert all(row.error == 0 for row in states)
    peaks = [row for row in rows if row.quantity == "peak" and row.device == "gpu"]
    assert len(peaks) == 4
    assert all(abs(row.error) < 0.001 for row in peaks)
    assert watched.first.rank == 5
    assert watched.job["gpu"] == "a100-80gb"
    measured = watched.first.peak()["gpu"]
    low, high = (watched.prediction["gpu"][end] for end in ("low", "high"))
    assert low - measured < 2**30  # the context and NCCL, which a simulated GPU has not
    assert measured < high
    assert not any("prediction" in note for note in watched.notes)


def test_a_run_that_leaves_what_was_predicted_says_so_once(run):
    _, _, misled, _ = run
    (said,) = [note for note in misled.notes if "above the prediction" in note]
    assert "the largest batch had 2 x 256 tokens, and 2 x 16 were predicted" in said


def test_a_simulated_run_says_nothing_of_a_cluster(run):
    with pytest.raises(InputError, match="simulated dry run"):
        calibrate([str(run[-1])])
