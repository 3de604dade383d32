"""Questions about the job that recordings are of."""

import json

import pytest
from support.recorded import CONFIG, MODEL

from zero_sizer import cli


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
