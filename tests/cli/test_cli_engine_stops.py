"""What DeepSpeed itself stops: an error about the job, told by ``dryrun``."""

import json

import pytest
from jsonschema import Draft202012Validator
from support.answers import closed
from support.simulated_jobs import TINY_LLAMA, config_of

from zero_sizer import cli
from zero_sizer.dryrun.engine_errors import engine_error, keys_named, raised_by_deepspeed

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


@pytest.mark.slow
def test_what_the_engine_refuses_is_an_error_about_the_job(tmp_path, capsys):
    """DeepSpeed's message with the key and line that it is about, beside what check finds."""
    config = tmp_path / "ds.json"
    config.write_text(
        json.dumps(config_of({"stage": 2}, optimizer={"type": "NoSuchOptimizer", "params": {}}))
    )
    (tmp_path / "config.json").write_text(json.dumps(TINY_LLAMA))
    command = ["dryrun", config, "--model", tmp_path / "config.json", *WORKLOAD]
    code, out, err = _said(capsys, *command, "--how", "simulated")
    assert code == 1, out + err
    assert out.startswith("NOT VALID (2 errors below)   DeepSpeed stops the job: AssertionError: ")
    told = "".join(out.split())  # a long path is wrapped
    assert f"error:{config}:1:optimizer.type:DeepSpeedstops" in told
    assert "[unknown-optimizer]" in out
    assert "Traceback" not in out + err
    code, out, _ = _said(capsys, *command, "--how", "simulated", "--format", "json")
    found = json.loads(out)
    Draft202012Validator(closed("stopped")).validate(found)
    assert (code, found["verdict"]) == (1, "uncertain")
    first, *others = found["findings"]
    assert (first["code"], first["key"], first["line"]) == ("engine-stop", "optimizer.type", 1)
    assert "deepspeed/runtime/engine.py:" in first["message"]
    assert [other["code"] for other in others] == ["unknown-optimizer"]


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
