"""An engine that is not the modelled one: what is known of it, and what that decides."""

import json

import pytest

from zero_sizer import cli

BF16 = {
    "bf16": {"enabled": True},
    "optimizer": {"type": "AdamW", "params": {"lr": 1e-5}},
    "train_micro_batch_size_per_gpu": 1,
}
OLD = ("--model", "gpt2-xl", "--gpus-per-node", "4", "--gpu-memory", "13.5GiB")
OLD = (*OLD, "--attention", "sdpa", "--seq-len", "1024", "--no-checkpointing")


def ask(tmp_path, capsys, config, *arguments):
    path = tmp_path / "ds.json"
    path.write_text(json.dumps(config))
    code = cli.main(["check", str(path), *arguments, "--format", "json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("version", "verdict", "code"),
    [
        (None, "does_not_fit", None),
        ("0.19.2", "does_not_fit", None),
        ("0.15.1", "does_not_fit", "other-deepspeed"),
        ("0.5.9", "uncertain", "old-gathering"),
    ],
)
def test_an_older_engine_may_gather_less(tmp_path, capsys, version, verdict, code):
    """Before 0.6 stage 3 kept other weights: what is gathered now is no ground for a refusal."""
    said = OLD if version is None else (*OLD, "--deepspeed-version", version)
    _, answer = ask(tmp_path, capsys, BF16 | {"zero_optimization": {"stage": 3}}, *said)
    assert answer["verdict"] == verdict
    found = {finding["code"] for finding in answer["findings"]}
    assert {"other-deepspeed", "old-gathering"} & found == ({code} if code else set())
    assert answer["job"]["deepspeed_version"]["value"] == (version or "0.19")


@pytest.mark.parametrize("version", ["new", "0", "0.5.x", "v0.5.0", "99999.1"])
def test_a_version_that_is_none_is_refused(tmp_path, capsys, version):
    config = tmp_path / "ds.json"
    config.write_text("{}")
    asked = ["check", str(config), "--model", "gpt2", "--deepspeed-version", version]
    with pytest.raises(SystemExit) as stop:
        raise SystemExit(cli.main(asked))
    assert stop.value.code == 2
    assert "--deepspeed-version" in capsys.readouterr().err
