"""``calibrate``: what ranks measured is what the profile says and later answers count with."""

import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.recorded import CONFIG, profile_of, recorded

from zero_sizer import cli
from zero_sizer.hardware import outside
from zero_sizer.questions.calibrate import calibrate
from zero_sizer.units import GIB, MIB


def test_a_step_that_was_measured_is_the_step_that_is_predicted(write, ask):
    """The rate is solved for, so that the answer about the recorded job is the measured time."""
    usual = ask("check")["speed"]["step_seconds"]["expected"]
    for seconds in (usual * 0.7, usual, usual * 3):
        values = profile_of(write(recorded(seconds=seconds)))
        ((name, rate),) = values["rates"].items()
        assert (rate["runs"], name) == (1, "matmul_tflops")
        speed = ask("check", "--cluster-profile", "cluster.json")["speed"]
        assert speed["step_seconds"]["expected"] == pytest.approx(seconds, rel=1e-6)
        (shown,) = [row for row in speed["rates"] if row["name"] == name]
        assert "cluster.json" in shown["origin"]


def test_rates_of_several_runs_are_their_median_and_a_steps_bound_decides_which(write, ask):
    runs = [recorded(seconds=seconds) for seconds in (0.4, 0.5, 0.9)]
    offload = {"stage": 2, "offload_optimizer": {"device": "cpu"}}
    offloaded = recorded(seconds=4.0, config={**CONFIG, "zero_optimization": offload})
    rates = profile_of(write(*runs, offloaded))["rates"]
    assert set(rates) == {"matmul_tflops", "host_memory_gb_per_s"}
    one = rates["matmul_tflops"]
    alone = profile_of(write(runs[1]))["rates"]["matmul_tflops"]["value"]
    assert one["runs"] == 3
    assert one["low"] < one["value"] < one["high"]
    assert one["value"] == alone


def test_a_stated_rate_wins_over_a_measured_one(write, ask, tmp_path):
    profile_of(write(recorded(seconds=0.5)))
    cluster = {"gpu": "a100-80gb", "gpus_per_node": 8, "matmul_tflops": 111}
    job = {"model": "config.json", "deepspeed": "ds.json", "workload": {"seq_len": 2048}}
    cluster["cluster_profile"] = "cluster.json"
    (tmp_path / "job.json").write_text(json.dumps({**job, "cluster": cluster}))
    (tmp_path / "job.yaml").write_text((tmp_path / "job.json").read_text())
    from zero_sizer.job.read import read

    found = read("job.yaml").cluster
    assert found.rates["matmul_tflops"] == 111
    assert found.measured.source == "cluster.json"


LAYOUTS = {
    "one_gpu": {"world_size": 1, "local_world_size": 1},
    "one_node": {"world_size": 8, "local_world_size": 8},
    "several_nodes": {"world_size": 16, "local_world_size": 8},
}


@settings(max_examples=20, deadline=None)
@given(st.lists(st.lists(st.integers(0, 4 * GIB), min_size=2, max_size=4), min_size=1, max_size=5))
def test_what_is_outside_is_the_least_and_the_most_that_ranks_measured(tmp_path_factory, runs):
    folder = tmp_path_factory.mktemp("runs")
    paths = []
    for index, sizes in enumerate(runs):
        paths.append(str(folder / f"{index}.json"))
        (folder / f"{index}.json").write_text(
            json.dumps(recorded(outside=sizes, gpu_name="", rank=index))
        )
    found = calibrate(paths).outside["one_node"]
    later = [size for sizes in runs for size in sizes[1:]]  # the first step still loads
    assert (found.low, found.high, found.ranks) == (min(later), max(later), len(runs))
    assert found.low <= found.expected <= found.high


def test_the_verdict_counts_what_was_measured_of_the_same_layout(write, ask):
    measured = {"one_gpu": 500 * MIB, "one_node": 1500 * MIB, "several_nodes": 3 * GIB}
    values = profile_of(
        write(*(recorded(outside=measured[name], **LAYOUTS[name]) for name in LAYOUTS))
    )
    assert {name: row["low"] for name, row in values["outside"].items()} == measured
    for nodes, name in (("1", "one_node"), ("4", "several_nodes")):
        gpu = ask("check", "--cluster-profile", "cluster.json", "--nodes", nodes)["devices"]["gpu"]
        assert gpu["low_bytes"] - gpu["peak_bytes"] == measured[name]


def test_of_a_context_alone_nccl_stays_as_published(write, ask):
    values = profile_of(write(recorded(outside=500 * MIB, **LAYOUTS["one_gpu"])))
    assert any("NCCL stays as published" in note for note in values["notes"])
    gpu = ask("check", "--cluster-profile", "cluster.json")["devices"]["gpu"]
    assert gpu["low_bytes"] - gpu["peak_bytes"] == 500 * MIB + outside.NCCL.low


def test_the_reserve_is_what_was_reserved_over_what_was_allocated(write, ask):
    values = profile_of(write(recorded(), recorded(allocated=9 * GIB)))
    assert values["reserve"] == {"median": 0.25, "most": 0.25, "ranks": 2}
    gpu = ask("check", "--cluster-profile", "cluster.json")["devices"]["gpu"]
    reserved = gpu["reserved_bytes"]
    assert reserved["expected"] == int(gpu["peak_bytes"] * 1.25)


def _listing(pinned):
    """A recording whose last phase lists 1 GiB of tensors on the host and 2 GiB on the GPU."""
    found = recorded()
    row = {"name": "x", "category": "gradients", "num_storages": 1}
    found["ranks"][0]["phases"][-1]["live"] = [
        {**row, "device": "host", "pinned": pinned, "num_bytes": GIB},
        {**row, "device": "gpu", "pinned": False, "num_bytes": 2 * GIB},
    ]
    return found


def test_a_process_is_what_is_resident_beside_its_tensors(write):
    process = profile_of(write(_listing(pinned=False)))["process"]
    assert process == {"low": 2 * GIB, "expected": 2 * GIB, "high": 2 * GIB, "ranks": 1}
    assert profile_of(write(_listing(pinned=True)))["process"] is None


@pytest.mark.parametrize("command", ["check", "choose", "size"])
def test_answers_that_rest_on_a_profile_name_it(command, write, ask, capsys):
    profile_of(write(recorded(outside=20 * GIB)))
    few = ["--max-nodes", "1"] if command == "size" else []
    with_it = ask(command, "--cluster-profile", "cluster.json", *few)
    assert "cluster.json: measured in 1 recording" in json.dumps(with_it)
    words = ["--model", "config.json", "--seq-len", "2048", "--gpus-per-node", "8", *few]
    assert cli.main([command, "ds.json", *words, "--cluster-profile", "cluster.json"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "cluster.json: measured in 1 recording" in said
    assert "20.00 GiB" in said
    assert "a100-80gb" in said  # which only the profile names


def test_a_full_gpu_is_told_by_what_was_measured(write, ask):
    profile_of(write(recorded(outside=78 * GIB, allocated=GIB // 2)))
    assert ask("check")["verdict"] == "fits"
    assert ask("check", "--cluster-profile", "cluster.json")["verdict"] == "does_not_fit"
    fewest = ask("size", "--cluster-profile", "cluster.json", "--max-nodes", "1")
    assert fewest["verdict"] == "does_not_fit"


def _without(values, *path):
    found = copy.deepcopy(values)
    node = found
    for key in path[:-1]:
        node = node[key]
    del node[path[-1]]
    return found


REFUSED = {
    "a dry run's": (recorded(how="launched"), "launched dry run"),
    "another schema's": ({**recorded(), "schema_version": 9}, "schema_version"),
    "no JSON object": ([], "not a recording"),
    "seconds that are words": (
        {
            **recorded(),
            "ranks": [{**recorded()["ranks"][0], "steps": [{"step": 0, "seconds": "x"}]}],
        },
        "seconds",
    ),
    "without a job": (_without(recorded(), "job"), "job"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_recording_of_a_trained_run_is_refused(case, write, capsys):
    values, says = REFUSED[case]
    assert cli.main(["calibrate", *write(values)]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert len(said.splitlines()) == 1


def test_recordings_of_two_kinds_of_gpu_are_no_cluster(write, capsys):
    other = recorded(gpu="h100-80gb", gpu_name="NVIDIA H100 80GB HBM3")
    assert cli.main(["calibrate", *write(recorded(), other)]) == 2
    assert "different machines" in capsys.readouterr().err


def test_a_profile_of_another_gpu_is_refused(write, ask):
    profile_of(write(recorded()))
    said = ask("check", "--cluster-profile", "cluster.json", gpu="h100-80gb")
    assert "measured on a100-80gb, not on h100-80gb" in said


@pytest.mark.parametrize(
    "values",
    [{}, [], {"schema_version": 1}, {"schema_version": 1, "outside": {"moon": {}}}],
    ids=str,
)
def test_what_is_no_profile_is_refused(values, ask, tmp_path):
    (tmp_path / "cluster.json").write_text(json.dumps(values))
    said = ask("check", "--cluster-profile", "cluster.json")
    assert "not a cluster profile" in said
    assert "calibrate" in said


def test_a_step_that_no_rate_explains_is_said(write):
    values = profile_of(write(recorded(seconds=1e6)))
    assert values["rates"] == {}
    assert any("no matmul_tflops explains that" in note for note in values["notes"])


def _refused(paths, capsys):
    assert cli.main(["calibrate", *paths]) == 2
    return capsys.readouterr().err


def test_one_run_counts_once(write, capsys):
    """A pattern that a shell fills in twice would weigh a run twice."""
    paths = write(recorded(), recorded(), recorded(seconds=0.6))
    assert "run1.json: holds what" in _refused(paths, capsys)
    assert cli.main(["calibrate", paths[0], paths[2]]) == 0


@pytest.mark.parametrize(
    ("figures", "says"),
    [
        ({"used": 10**14}, "its GPU has"),
        ({"max_allocated": 1}, "gpu.allocated is"),
        ({"max_reserved": 1}, "gpu.max_allocated is"),
    ],
)
def test_figures_that_no_run_measures_make_no_profile(write, capsys, figures, says):
    run = recorded()
    run["ranks"][0]["phases"][0]["device"]["gpu"].update(figures)
    assert says in _refused(write(run), capsys)


def test_a_job_that_deepspeed_refuses_gives_no_rate(write):
    config = {**CONFIG, "zero_optimization": {"stage": "three"}}
    found = calibrate(write(recorded(config=config)))
    assert not found.rates
    assert any("zero_optimization.stage" in note for note in found.notes)


def test_a_key_of_a_profile_that_nobody_reads_is_refused(write, ask, tmp_path):
    values = profile_of(write(recorded()))
    (tmp_path / "cluster.json").write_text(json.dumps({**values, "rate": {"matmul_tflops": 1}}))
    assert "it has 'rate', none of" in ask("check", "--cluster-profile", "cluster.json")


def test_a_run_whose_loss_is_not_predicted_gives_no_rate(write):
    said = "DPOTrainer computes a loss of its own: none of it is in the prediction"
    found = calibrate(write(recorded(left_out=[said])))
    assert not found.rates
    assert found.outside  # which has nothing to do with it
    assert any(said in note for note in found.notes)
