"""``calibrate``: what ranks measured is what the profile says and later answers count with."""

import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from support.answers import closed

from zero_sizer import cli
from zero_sizer.hardware import outside
from zero_sizer.questions.calibrate import calibrate
from zero_sizer.units import GIB, MIB

MODEL = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 12,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "vocab_size": 32000,
}
CONFIG = {
    "train_micro_batch_size_per_gpu": 4,
    "zero_optimization": {"stage": 2},
    "bf16": {"enabled": True},
    "optimizer": {"type": "AdamW", "params": {"lr": 1e-4}},
}
JOB = {
    "hf_config": MODEL,
    "config": CONFIG,
    "name": "small",
    "gpu": "a100-80gb",
    "gpu_name": "NVIDIA A100-SXM4-80GB",
    "gpu_bytes": 84_974_239_744,
    "local_world_size": 8,
    "micro_batch": 4,
    "grad_accum": 1,
    "seq_len": 2048,
    "attention": "flash",
    "checkpointing": False,
    "sequences": "equal",
}


def recorded(
    *, world_size=8, outside=900 * MIB, seconds=0.5, how="trained", allocated=8 * GIB, **job
):
    """A recording of one rank of a run; what lies outside PyTorch's reserve may be a list."""
    taken = outside if isinstance(outside, list) else [outside]
    reserved = int(allocated * 1.25)
    phases = [
        {
            "name": name,
            "step": step,
            "micro_step": 0,
            "device": {
                "gpu": {
                    "allocated": allocated,
                    "max_allocated": allocated,
                    "reserved": reserved,
                    "max_reserved": reserved,
                    "used": reserved + taken[min(step, len(taken) - 1)],
                },
                "host": {"resident": 3 * GIB},
            },
            "live": [],
        }
        for step in range(max(2, len(taken)))
        for name in ("forward", "backward", "step")
    ]
    steps = [{"step": step, "seconds": seconds, "tokens": 8192} for step in range(8)]
    return {
        "schema_version": 1,
        "how": how,
        "versions": {"torch": "2.13"},
        "world_size": world_size,
        "rank": 0,
        "job": {**JOB, **job},
        "phases": phases,
        "peak": {"gpu": allocated},
        "log": [],
        "notes": [],
        "rooms": [],
        "prediction": {},
        "ranks": [{"rank": 0, "phases": phases, "steps": steps, "skipped_steps": 0, "notes": []}],
    }


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def written(*recordings):
        paths = [tmp_path / f"run{index}.json" for index in range(len(recordings))]
        for path, values in zip(paths, recordings, strict=True):
            path.write_text(json.dumps(values))
        return [str(path) for path in paths]

    return written


@pytest.fixture
def ask(tmp_path, capsys, write):
    """The JSON of a question about the recorded job."""
    (tmp_path / "config.json").write_text(json.dumps(MODEL))
    (tmp_path / "ds.json").write_text(json.dumps(CONFIG))

    def asked(command, *words, gpu="a100-80gb"):
        argv = [command, "ds.json", "--model", "config.json", "--gpu", gpu, "--format", "json"]
        argv += ["--seq-len", "2048", "--attention", "flash", "--no-checkpointing", *words]
        if command != "size" and "--nodes" not in words:
            argv += ["--nodes", "1"]
        capsys.readouterr()  # what calibrate said
        code = cli.main([*argv, "--gpus-per-node", "8"])
        said = capsys.readouterr()
        return json.loads(said.out) if code in (0, 1, 3) else said.err

    return asked


def _profile(paths, name="cluster.json"):
    assert cli.main(["calibrate", *paths, "--output", name]) == 0
    with open(name, encoding="utf-8") as file:
        values = json.load(file)
    assert not list(Draft202012Validator(closed("calibrate")).iter_errors(values))
    return values


def test_a_step_that_was_measured_is_the_step_that_is_predicted(write, ask):
    """The rate is solved for, so that the answer about the recorded job is the measured time."""
    usual = ask("check")["speed"]["step_seconds"]["expected"]
    for seconds in (usual * 0.7, usual, usual * 3):
        values = _profile(write(recorded(seconds=seconds)))
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
    rates = _profile(write(*runs, offloaded))["rates"]
    assert set(rates) == {"matmul_tflops", "host_memory_gb_per_s"}
    one = rates["matmul_tflops"]
    alone = _profile(write(runs[1]))["rates"]["matmul_tflops"]["value"]
    assert one["runs"] == 3
    assert one["low"] < one["value"] < one["high"]
    assert one["value"] == alone


def test_a_stated_rate_wins_over_a_measured_one(write, ask, tmp_path):
    _profile(write(recorded(seconds=0.5)))
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
    values = _profile(
        write(*(recorded(outside=measured[name], **LAYOUTS[name]) for name in LAYOUTS))
    )
    assert {name: row["low"] for name, row in values["outside"].items()} == measured
    for nodes, name in (("1", "one_node"), ("4", "several_nodes")):
        gpu = ask("check", "--cluster-profile", "cluster.json", "--nodes", nodes)["devices"]["gpu"]
        assert gpu["low_bytes"] - gpu["peak_bytes"] == measured[name]


def test_of_a_context_alone_nccl_stays_as_published(write, ask):
    values = _profile(write(recorded(outside=500 * MIB, **LAYOUTS["one_gpu"])))
    assert any("NCCL stays as published" in note for note in values["notes"])
    gpu = ask("check", "--cluster-profile", "cluster.json")["devices"]["gpu"]
    assert gpu["low_bytes"] - gpu["peak_bytes"] == 500 * MIB + outside.NCCL.low


def test_the_reserve_is_what_was_reserved_over_what_was_allocated(write, ask):
    values = _profile(write(recorded(), recorded(allocated=9 * GIB)))
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
    process = _profile(write(_listing(pinned=False)))["process"]
    assert process == {"low": 2 * GIB, "expected": 2 * GIB, "high": 2 * GIB, "ranks": 1}
    assert _profile(write(_listing(pinned=True)))["process"] is None


@pytest.mark.parametrize("command", ["check", "choose", "size"])
def test_answers_that_rest_on_a_profile_name_it(command, write, ask, capsys):
    _profile(write(recorded(outside=20 * GIB)))
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
    _profile(write(recorded(outside=78 * GIB, allocated=GIB // 2)))
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
    _profile(write(recorded()))
    said = ask("check", "--cluster-profile", "cluster.json", gpu="h100-80gb")
    assert "measured on a100-80gb, not on h100-80gb" in said


def _foreign(write, **job):
    """A profile that was measured on a card of which the table knows nothing."""
    values = _profile(write(recorded(gpu_name="Graphcore GX-9", gpu=None, **job)))
    assert (values["gpu"], values["gpu_name"]) == (None, "Graphcore GX-9")
    return values


@pytest.mark.parametrize("command", ["check", "choose", "size"])
def test_a_profile_of_an_unknown_gpu_leaves_a_job_on_a_known_one_open(command, write, ask):
    _foreign(write)
    few = ["--max-nodes", "1"] if command == "size" else []
    assert ask(command, *few)["verdict"] == "fits"
    answer = ask(command, "--cluster-profile", "cluster.json", *few)
    assert answer["verdict"] == "uncertain"
    (reason,) = [r for r in answer["reasons"] if r["code"] == "cluster-profile-gpu"]
    assert reason["direction"] == "either"
    for word in ("cluster.json", "Graphcore GX-9", "not in the GPU table", "a100-80gb"):
        assert word in reason["message"]


def test_inference_too_is_told_of_a_profile_of_an_unknown_gpu(write, ask):
    _foreign(write)
    inference = ("--task", "inference", "--batch-size", "1", "--new-tokens", "8")
    answer = ask("check", *inference, "--cluster-profile", "cluster.json")
    assert "cluster-profile-gpu" in {finding["code"] for finding in answer["findings"]}
    assert answer["verdict"] != "fits"


def test_a_profile_of_an_unknown_gpu_is_the_jobs_where_it_names_none(write, capsys, tmp_path):
    _foreign(write)
    (tmp_path / "config.json").write_text(json.dumps(MODEL))
    (tmp_path / "ds.json").write_text(json.dumps(CONFIG))
    words = ["check", "ds.json", "--model", "config.json", "--gpus-per-node", "8", "--seq-len"]
    words += ["2048", "--attention", "flash", "--gpu-memory", "79GiB", "--format", "json"]
    capsys.readouterr()
    assert cli.main([*words, "--cluster-profile", "cluster.json"]) == 0
    found = {f["code"]: f for f in json.loads(capsys.readouterr().out)["findings"]}
    assert found["cluster-profile-gpu"]["severity"] == "note"
    assert "is taken to be the job's" in found["cluster-profile-gpu"]["message"]


def test_a_profile_of_an_older_version_that_names_no_gpu_is_no_other(write, ask, tmp_path):
    values = _foreign(write)
    del values["gpu_name"]
    (tmp_path / "cluster.json").write_text(json.dumps(values))
    answer = ask("check", "--cluster-profile", "cluster.json")
    assert answer["verdict"] == "uncertain"
    assert "was measured on a GPU, which is not in the GPU table" in answer["reasons"][0]["message"]


def test_a_profile_of_runs_without_a_gpu_says_nothing_of_one(write, ask):
    run = recorded(gpu_name=None, gpu=None)
    for phase in run["ranks"][0]["phases"]:
        del phase["device"]["gpu"]
    _profile(write(run))
    answer = ask("check", "--cluster-profile", "cluster.json")
    assert answer["verdict"] == "fits"
    assert "cluster-profile-gpu" not in {finding["code"] for finding in answer["findings"]}


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
    values = _profile(write(recorded(seconds=1e6)))
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
    values = _profile(write(recorded()))
    (tmp_path / "cluster.json").write_text(json.dumps({**values, "rate": {"matmul_tflops": 1}}))
    assert "it has 'rate', none of" in ask("check", "--cluster-profile", "cluster.json")
