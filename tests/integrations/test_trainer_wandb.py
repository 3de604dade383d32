"""Weights & Biases itself, offline: what the callback sends arrives in its file beside the loss."""

import json
import os
import struct
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_spec("wandb") is None,
        reason="needs wandb, 62 MB that scripts/test leaves out: pip install wandb",
    ),
]

ROOT = Path(__file__).parents[2]
RUN = """
import sys
from pathlib import Path
from support.trained_runs import llama, train
train(Path(sys.argv[1]), llama, None, report_to=["wandb"], steps=4)
"""
_BLOCK, _WHOLE, _LAST = 32768, 1, 4  # of LevelDB's log format, in which W&B writes


def rows(data):
    """Metrics of a run's file, a mapping each time that something was logged."""
    from wandb.proto import wandb_internal_pb2

    at, parts = 7, b""
    while at + 7 <= len(data):
        left = _BLOCK - at % _BLOCK
        if left < 7:
            at += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, at)
        parts += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (_WHOLE, _LAST):
            record, parts = wandb_internal_pb2.Record.FromString(parts), b""
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                yield {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items}


def test_metrics_arrive_at_their_steps(tmp_path):
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(
            [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
        ),
        "WANDB_MODE": "offline",
        "WANDB_DIR": str(tmp_path),
        "WANDB_SILENT": "true",
        "HF_HUB_OFFLINE": "1",
    }
    command = [sys.executable, "-c", RUN, str(tmp_path / "out")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (path,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    found = list(rows(path.read_bytes()))
    steps = {
        name: {row["train/global_step"] for row in found if name in row}
        for row in found
        for name in row
    }
    assert steps["train/loss"] == {2, 4}
    for phase in ("forward", "backward", "step"):
        name = f"train/memory/host_resident_{phase}_gib"
        assert steps[name] == {2, 4}
        assert all(0.1 < row[name] < 64 for row in found if name in row)
