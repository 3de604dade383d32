"""Real training runs on two CPU ranks, watched from inside; what they wrote is asked about."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from support.answers import closed
from support.trained_runs import ACCUMULATION, CONFIG, FEW, ROWS, STEPS, TOKENS

from zero_sizer import cli
from zero_sizer.crosscheck import compare
from zero_sizer.dryrun import recording, to_job

pytestmark = pytest.mark.slow
pytest.importorskip("deepspeed")

ROOT = Path(__file__).parents[2]
RANKS = 2
PREDICTED = ("stage 2", "stage 3", "lora", "loop")
RECORDED = (*PREDICTED, "refused", "plain")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder with a folder for each run, and what each rank said of it."""
    folder = tmp_path_factory.mktemp("runs")
    shared = {
        "DS_ACCELERATOR": "cpu",
        "HF_HUB_OFFLINE": "1",
        "LOCAL_WORLD_SIZE": str(RANKS),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "1",  # ranks meet in a file
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        "WORLD_SIZE": str(RANKS),
    }
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "support.trained_runs", str(folder), str(rank), str(RANKS)],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(RANKS)
    ]
    logs = [process.communicate()[0] for process in ranks]
    assert [process.returncode for process in ranks] == [0] * RANKS, logs[0][-3000:]
    said = [json.loads((folder / f"said.{rank}.json").read_text()) for rank in range(RANKS)]
    return folder, said


def _file(folder, name, rank=0):
    return folder / name / f"memory.rank{rank}.json"


@pytest.mark.parametrize("name", RECORDED)
def test_every_rank_writes_a_recording_that_its_schema_describes(runs, name):
    folder, _ = runs
    validator = Draft202012Validator(closed("recording"))
    for rank in range(RANKS):
        values = json.loads(_file(folder, name, rank).read_text())
        assert not [error.message for error in validator.iter_errors(values)]
        found = recording.from_json(values)
        assert (found.how, found.world_size, found.first.rank) == ("trained", RANKS, rank)
        assert found.first.phases[0].name == "init"
        assert all(phase.device["host"]["resident"] > 2**26 for phase in found.first.phases)


@pytest.mark.parametrize("name", PREDICTED)
def test_a_recording_alone_is_predicted_and_its_model_states_are_right(runs, name):
    for rank in range(RANKS):
        found = recording.read(_file(runs[0], name, rank))
        job = to_job.job_of(found)
        rows = compare.against_recording(compare.recorded_job(job, found), found).rows
        states = [row for row in rows if row.quantity == "model states"]
        phases = {row.phase for row in states if row.witnessed}
        assert phases == {"init", "step"}
        assert [row.predicted for row in states] == [row.witnessed for row in states]


def test_phases_are_those_of_the_loop_and_tokens_those_of_its_batches(runs):
    folder, _ = runs
    found = recording.read(_file(folder, "stage 2")).first
    one = [("forward", 0), ("backward", 0), ("forward", 1), ("backward", 1), ("step", 1)]
    for step in (0, 1, STEPS - 1):
        seen = [(p.name, p.micro_step) for p in found.phases if p.step == step]
        assert seen == ([("init", 0), *one] if step == 0 else one)
    between = {p.name for p in found.phases} - {name for name, _ in one} - {"init"}
    assert between == {"evaluation", "save"}
    assert [step.step for step in found.steps] == list(range(STEPS))
    assert {step.tokens for step in found.steps} == {ROWS * TOKENS * ACCUMULATION}
    assert all(step.seconds > 0 for step in found.steps)


def test_only_the_first_rank_speaks_and_it_predicts_at_the_start(runs):
    _, (first, second) = runs
    for name in PREDICTED:
        head, *lines = first[name]["printed"].splitlines()
        assert head.startswith("zero-sizer: ")
        assert any(line.split()[:1] == ["GPU"] for line in lines)
        assert second[name]["printed"] == ""
    assert "LlamaForCausalLM with LoRA r=4" in first["lora"]["printed"]
    assert f"micro batch {ROWS} x {TOKENS} tokens" in first["stage 3"]["printed"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("refused", "nothing is predicted (--gpu: no GPU 'no-such-gpu'"),
        ("broken", "nothing is watched any more (RuntimeError: no such device)"),
        ("plain", "no DeepSpeed config: memory is recorded, nothing is predicted"),
    ],
)
def test_what_goes_wrong_is_one_line_and_the_run_goes_on(runs, name, says):
    _, (first, second) = runs
    lines = [line for line in first[name]["printed"].splitlines() if says in line]
    assert len(lines) == 1
    assert first[name]["steps"] == second[name]["steps"] == FEW


def _events(data):
    """TensorBoard's records: a length of 8 bytes, 4 of checksum, the event, 4 of checksum."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    at = 0
    while at < len(data):
        (size,) = struct.unpack_from("<Q", data, at)
        yield event_pb2.Event.FromString(data[at + 12 : at + 12 + size])
        at += 12 + size + 4


def test_metrics_go_where_the_trainer_reports(runs):
    folder, _ = runs
    (path,) = (folder / "stage 2" / "runs").rglob("events.out.tfevents.*")
    tags = {}
    for event in _events(path.read_bytes()):
        for value in event.summary.value:
            tags.setdefault(value.tag, []).append((event.step, value.simple_value))
    assert "train/loss" in tags
    mine = {tag: found for tag, found in tags.items() if "memory/" in tag}
    assert "train/memory/host_resident_backward_gib" in mine
    assert {step for step, _ in mine["train/memory/host_resident_step_gib"]} >= {2, 4}
    assert all(0 <= value < 64 for found in mine.values() for _, value in found)


def test_a_loop_hands_its_metrics_to_what_it_was_given(runs):
    first, second = (
        json.loads((runs[0] / "loop" / f"logged.{rank}.json").read_text()) for rank in range(RANKS)
    )
    assert [step for step, _ in first] == [1, 2]
    assert all("memory/host_resident_forward_gib" in metrics for _, metrics in first)
    assert second == []


def test_an_error_passes_through_and_the_recording_says_where_it_came(runs):
    folder, said = runs
    for rank in range(RANKS):
        assert said[rank]["loop"]["error"].startswith("CUDA out of memory")
        (note,) = [
            note
            for note in recording.read(_file(folder, "loop", rank)).notes
            if note.startswith("ended by")
        ]
        assert note.startswith("ended by OutOfMemoryError in forward of step 2, micro step 0: ")


def test_from_a_run_to_a_profile_to_an_answer_that_names_it(runs, tmp_path, capsys):
    folder, _ = runs
    files = [str(_file(folder, "stage 2", rank)) for rank in range(RANKS)]
    assert cli.main(["crosscheck", *(w for f in files for w in ("--recording", f))]) == 0
    assert "model states" in capsys.readouterr().out

    profile, config = tmp_path / "cluster.json", tmp_path / "ds.json"
    assert cli.main(["calibrate", *files, "--output", str(profile)]) == 0
    assert f"profile written to {profile}" in capsys.readouterr().out
    values = json.loads(profile.read_text())
    assert not list(Draft202012Validator(closed("calibrate")).iter_errors(values))
    process = values["process"]
    assert (process["ranks"], values["gpu"]) == (RANKS, None)

    config.write_text(json.dumps({**CONFIG, "zero_optimization": {"stage": 2}}))
    asked = ["check", str(config), "--model", "gpt2", "--gpu", "l4", "--gpus-per-node", "2"]
    asked += ["--micro-batch", "1", "--seq-len", "64", "--precision", "bf16"]
    asked += ["--host-memory", "64GiB", "--format", "json"]
    answers = {}
    for name, more in {"before": [], "after": ["--cluster-profile", str(profile)]}.items():
        assert cli.main([*asked, *more]) == 0
        answers[name] = json.loads(capsys.readouterr().out)
    tensors = answers["after"]["devices"]["host"]["peak_bytes"]
    low = {name: answer["devices"]["host"]["low_bytes"] for name, answer in answers.items()}
    assert low["after"] - tensors == RANKS * process["low"] != low["before"] - tensors
    (finding,) = [f for f in answers["after"]["findings"] if f["code"] == "cluster-profile"]
    assert str(profile) in finding["message"]
    assert answers["after"]["job"]["cluster_profile"]["value"] == str(profile)
