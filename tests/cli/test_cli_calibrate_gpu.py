"""A cluster profile of a GPU that is in no table: whose job is it good for?"""

import json

import pytest
from support.recorded import CONFIG, MODEL, profile_of, recorded

from zero_sizer import cli


def _foreign(write, **job):
    """A profile that was measured on a card of which the table knows nothing."""
    values = profile_of(write(recorded(gpu_name="Graphcore GX-9", gpu=None, **job)))
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
    profile_of(write(run))
    answer = ask("check", "--cluster-profile", "cluster.json")
    assert answer["verdict"] == "fits"
    assert "cluster-profile-gpu" not in {finding["code"] for finding in answer["findings"]}
