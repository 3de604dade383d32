"""What DeepSpeed itself stops: an error about the job, told by ``dryrun``."""

import json
from pathlib import Path

import pytest
from checks.test_config_checks import INVALID
from jsonschema import Draft202012Validator
from support.answers import closed
from support.simulated_jobs import TINY_LLAMA, config_of

from zero_sizer import cli
from zero_sizer.cli import dryrun
from zero_sizer.dryrun.engine_errors import engine_error, keys_named, raised_by_deepspeed
from zero_sizer.errors import WitnessError

SCRIPT = Path(__file__).parents[1] / "data" / "scripts" / "plain_loop.py"
WORKLOAD = ("--seq-len", "32", "--attention", "eager")


def _said(capsys, *arguments):
    """(exit code, stdout, stderr) of a command in this process: simulated ranks are forks then."""
    code = cli.main([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


@pytest.mark.parametrize(
    ("message", "keys"),
    [
        (
            "AssertionError: allgather_bucket_size must be 2",
            ["zero_optimization.allgather_bucket_size"],
        ),
        ("no such optimizer: NoSuchOne", ["optimizer.type"]),
        ("the allgather bucket is too small, lr or type", []),
    ],
)
def test_an_engines_message_is_traced_to_the_keys_it_names(message, keys):
    config = {
        "optimizer": {"type": "NoSuchOne", "params": {"lr": 1e-4}},
        "zero_optimization": {"stage": 1, "allgather_bucket_size": 3},
    }
    assert keys_named(message, config) == keys
    error = engine_error(message, config)
    assert error.exit_code == 3  # nobody knows who raised it
    assert str(error) == (f"{message} (in the config: {keys[0]})" if keys else message)


@pytest.fixture
def folder(tmp_path):
    """A folder with a small model's config.json."""
    (tmp_path / "config.json").write_text(json.dumps(TINY_LLAMA))
    return tmp_path


@pytest.mark.slow
def test_what_the_engine_refuses_is_an_error_about_the_job(folder, capsys):
    """DeepSpeed's message with the key and line that it is about; check knows nothing of it."""
    config = folder / "ds.json"
    scheduler = {"type": "StepLR", "params": {"gamma": 0.5}}
    values = {**config_of({"stage": 0}), "bf16": {"enabled": False}, "scheduler": scheduler}
    config.write_text(json.dumps(values))
    job = [config, "--model", folder / "config.json", *WORKLOAD]
    code, out, err = _said(capsys, "check", *job)
    assert code == 3, out + err  # no GPU was stated
    command = ["dryrun", *job, "--how", "simulated"]
    code, out, err = _said(capsys, *command)
    assert code == 1, out + err
    assert out.startswith("NOT VALID (1 error below)   DeepSpeed stops the job: TypeError: StepLR")
    told = "".join(out.split())  # a long path is wrapped
    assert f"error:{config}:1:scheduler.type:DeepSpeedstops" in told
    assert "Traceback" not in out + err
    code, out, _ = _said(capsys, *command, "--format", "json")
    found = json.loads(out)
    Draft202012Validator(closed("stopped")).validate(found)
    assert (code, found["verdict"]) == (1, "uncertain")
    (first,) = found["findings"]
    assert (first["code"], first["key"], first["line"]) == ("engine-stop", "scheduler.type", 1)
    assert "deepspeed/runtime/engine.py:" in first["message"]


def _not_started(*_, **__):
    raise WitnessError("the engine would be started")


@pytest.mark.slow
def test_dryrun_and_check_agree_on_which_jobs_are_valid(folder, capsys, monkeypatch):
    """What DeepSpeed does with each example: tests/checks/test_config_checks_engine.py.

    A dry run lays a job out so that it runs: of these it showed an invalid batch, swap files
    without a folder and tokens beyond a table of positions as jobs that fit.
    """
    monkeypatch.setattr(dryrun, "record", _not_started)
    valid = []
    for path in INVALID[::5]:
        job = [path, "--model", folder / "config.json", *WORKLOAD, "--gpus-per-node", "8"]
        checked = _said(capsys, "check", *job, "--format", "json")
        ran = _said(capsys, "dryrun", *job, "--how", "simulated", "--format", "json")
        errors = [f for f in json.loads(checked[1])["findings"] if f["severity"] == "error"]
        if errors:
            assert (checked[0], ran[0]) == (1, 1), path
            assert json.loads(ran[1])["findings"] == errors
        else:
            assert (checked[0], ran) == (3, (3, "", ran[2])), path
            valid.append(path)
    assert 3 < len(valid) < 16  # warnings alone


def test_tokens_beyond_a_table_of_positions_are_not_run(folder, capsys, monkeypatch):
    monkeypatch.setattr(dryrun, "record", _not_started)
    config = folder / "ds.json"
    config.write_text(json.dumps(config_of({"stage": 2})))
    job = [config, "--model", "gpt2", "--seq-len", "2048"]
    code, out, _ = _said(capsys, "dryrun", *job, "--how", "simulated")
    assert code == 1
    assert out.startswith("NOT VALID (1 error below)   IndexError")
    assert "not started" in out
    assert "[sequence-too-long]" in out


@pytest.mark.parametrize(
    ("cluster", "code"), [("", 3), ("cluster: {nodes: 1, gpus_per_node: 1}", 1)]
)
def test_a_launched_job_has_the_ranks_of_the_run_where_it_states_none(
    folder, capsys, monkeypatch, cluster, code
):
    monkeypatch.setattr(dryrun, "record", _not_started)
    values = {**config_of({"stage": 2}), "train_batch_size": 4, "gradient_accumulation_steps": 1}
    (folder / "ds.json").write_text(json.dumps(values))
    (folder / "job.yaml").write_text(f"model: config.json\ndeepspeed: ds.json\n{cluster}")
    command = ["dryrun", folder / "job.yaml", *WORKLOAD, "--how", "launched", "--ranks", "4"]
    assert _said(capsys, *command)[0] == code


@pytest.mark.slow
def test_a_script_is_told_what_check_finds_in_its_config(folder, capsys):
    """Python raises this, not DeepSpeed, so that it was one line and exit code 3."""
    config = folder / "ds.json"
    config.write_text(json.dumps(config_of({"stage": 3, "offload_optimizer": {"device": "nvme"}})))
    code, out, _ = _said(capsys, "dryrun", "--how", "simulated", "--", SCRIPT, config)
    assert code == 1
    assert out.startswith("NOT VALID (2 errors below)   the script ends: TypeError")
    assert "[nvme-path]" in out


def _raised(run, *arguments):
    with pytest.raises(Exception) as caught:  # noqa: PT011
        run(*arguments)
    return raised_by_deepspeed(caught.value)


@pytest.mark.slow
def test_an_error_is_deepspeeds_where_deepspeed_raises_it():
    """Not torch's, the machine's or a file's: these say nothing against the job."""
    config = pytest.importorskip("deepspeed.runtime.config")
    builder = pytest.importorskip("deepspeed.ops.op_builder.builder")
    zero = pytest.importorskip("deepspeed.runtime.zero.config").DeepSpeedZeroConfig
    batch = {"train_batch_size": 3, "train_micro_batch_size_per_gpu": 2}
    found = _raised(config.DeepSpeedConfig, {**batch, "gradient_accumulation_steps": 1})
    assert found.on_purpose
    assert found.at.startswith("deepspeed/runtime/config.py:")
    assert _raised(lambda: zero(stage=7)).at.startswith("deepspeed/runtime/config_utils.py:")
    assert _raised(builder.assert_no_cuda_mismatch) is None
    assert _raised(lambda: [][0]) is None
