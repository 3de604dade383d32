"""Emitted files keep what the user wrote, name what they change, and go back into ``check``."""

import json

import pytest
import yaml

from zero_sizer import cli

CONFIG = {
    "bf16": {"enabled": True},
    "optimizer": {"type": "AdamW", "params": {"lr": "auto", "betas": [0.9, 0.95]}},
    "zero_optimization": {
        "stage": 3,
        "overlap_comm": False,
        "stage3_gather_16bit_weights_on_model_save": True,
        "reduce_bucket_size": "auto",
    },
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
}
CLUSTER = [
    "--gpus-per-node",
    "8",
    "--gpu",
    "a100-80gb",
    "--host-memory",
    "1TiB",
    "--seq-len",
    "2048",
]


def run(capsys, *arguments):
    code = cli.main([*map(str, arguments)])
    return code, capsys.readouterr()


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "ds.json"
    path.write_text(json.dumps(CONFIG))
    return path


def leaves(values, prefix=""):
    for key, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def test_every_difference_is_named_and_nothing_else_is_changed(config, tmp_path, capsys):
    out = tmp_path / "out.json"
    asked = ["choose", config, "--model", "llama-3.2-3b", *CLUSTER, "--emit", out]
    code, printed = run(capsys, *asked, "--format", "json")
    answer = json.loads(printed.out)
    before, after = dict(leaves(CONFIG)), dict(leaves(json.loads(out.read_text())))
    different = {k for k in {*before, *after} if before.get(k) != after.get(k)}
    assert code == 0
    assert {edit["key"] for edit in answer["changes"]} == different
    for edit in answer["changes"]:
        assert edit["before"] == before.get(edit["key"])
        assert edit["after"] == after.get(edit["key"])
        assert edit["why"]
    assert after["optimizer.params.lr"] == "auto"
    if after["zero_optimization.stage"] > 0:
        assert after["zero_optimization.overlap_comm"] is False


def test_without_a_config_what_is_made_up_is_said(tmp_path, capsys):
    out = tmp_path / "out.json"
    asked = ["choose", "--model", "llama-3.2-3b", *CLUSTER, "--emit", out]
    printed = " ".join(run(capsys, *asked)[1].out.split())
    for key in ("optimizer.params.lr", "optimizer.params.weight_decay", "gradient_clipping"):
        assert key in printed
    assert "made up" in printed


def test_the_config_that_was_read_is_not_overwritten_unasked(config, capsys):
    text = config.read_text()
    asked = ["choose", config, "--model", "llama-3.2-3b", *CLUSTER, "--emit", config]
    code, printed = run(capsys, *asked)
    assert code == 2
    assert "--force" in printed.err
    assert config.read_text() == text
    assert run(capsys, *asked, "--force")[0] == 0
    assert config.read_text() != text


def test_no_file_is_written_over_or_written_twice(config, tmp_path, capsys):
    hosts = tmp_path / "hosts"
    hosts.write_text("one slots=8\n")
    asked = ["choose", config, "--model", "llama-3.2-3b", *CLUSTER]
    code, printed = run(capsys, *asked, "--emit", hosts)
    assert code == 2
    assert "exists" in printed.err
    assert hosts.read_text() == "one slots=8\n"
    same = tmp_path / "same.json"
    code, printed = run(capsys, *asked, "--emit", same, "--emit-args", same)
    assert code == 2
    assert "--emit" in printed.err
    assert not same.exists()


def test_a_key_cannot_write_a_line_of_its_own_into_a_job(tmp_path, capsys):
    config = tmp_path / "ds.json"
    zero = {"stage": 3, "offload_param": {"device": "cpu", "k\nquantization: int8\n#": 1}}
    optimizer = {"type": "AdamW", "params": {"lr": 1e-4}}
    config.write_text(json.dumps({"zero_optimization": zero, "optimizer": optimizer}))
    out = tmp_path / "job.yaml"
    run(capsys, "choose", config, "--model", "llama-3.2-3b", *CLUSTER, "--emit-job", out)
    assert "quantization" not in yaml.safe_load(out.read_text())


@pytest.mark.slow
def test_nothing_fits_writes_nothing_and_exits_alike(tmp_path, capsys):
    none = ["choose", "--model", "llama-3-8b", "--gpu", "t4", "--host-memory", "8GiB"]
    none += ["--seq-len", "512"]
    for flag in ("--emit", "--emit-job"):
        code, printed = run(capsys, *none, flag, tmp_path / "x.yaml")
        assert code == 1
        assert "not written" in printed.err
    assert not (tmp_path / "x.yaml").exists()


@pytest.mark.slow
@pytest.mark.parametrize("flag", ["--emit", "--emit-job"])
def test_a_job_yaml_goes_back_into_check_and_means_the_same(config, tmp_path, capsys, flag):
    out = tmp_path / "job.yaml"
    extra = ["--attention", "flash", "--num-workers", "2", "--nvme", "2TB"]
    asked = ["choose", config, "--model", "llama-3.2-3b", *CLUSTER, *extra]
    answer = json.loads(run(capsys, *asked, flag, out, "--format", "json")[1].out)
    code, printed = run(capsys, "check", out, "--format", "json")
    checked = json.loads(printed.out)
    assert code == 0
    for device in ("gpu", "host"):
        peak = answer["chosen"]["peak_bytes"][device]
        assert checked["devices"][device]["peak_bytes"] == peak
    values = yaml.safe_load(out.read_text())
    assert values["workload"]["num_workers"] == 2
    for edit in answer["changes"]:
        assert f"# {edit['key']}: " in out.read_text()


@pytest.mark.slow
def test_what_a_job_yaml_says_of_the_model_is_kept(tmp_path, capsys):
    job = tmp_path / "in.yaml"
    values = {
        "model": "llama-3.2-3b",
        "adapter": {"r": 8, "target_modules": "all-linear"},
        "deepspeed": {"bf16": {"enabled": True}, "optimizer": {"type": "AdamW", "params": {}}},
        "cluster": {"gpus_per_node": 2, "gpu": "a100-40gb", "host_memory": "256GiB"},
        "workload": {"seq_len": 1024, "attention": "flash"},
    }
    job.write_text(yaml.safe_dump(values))
    out = tmp_path / "out.yaml"
    assert run(capsys, "choose", job, "--emit-job", out)[0] == 0
    written = yaml.safe_load(out.read_text())
    for key in ("model", "adapter"):
        assert written[key] == values[key]
    assert run(capsys, "check", out)[0] == 0
