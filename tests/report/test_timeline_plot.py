"""`check --timeline`: what it draws and what it gives a program are the verdict's own numbers."""

import json
import re
import subprocess
import sys

import pytest

from zero_sizer.cli import main
from zero_sizer.report.plot import Column, draw
from zero_sizer.units import format_gib

JOBS = {
    "dense, not checkpointed": {"stage": 2, "model": "llama-3-8b", "checkpointing": False},
    "stage 3, checkpointed": {"stage": 3, "model": "qwen3-4b", "checkpointing": True},
    "stage 0, encoder-decoder": {"stage": 0, "model": "t5-3b", "checkpointing": False},
    "offloaded, experts": {
        "stage": 3,
        "model": "mixtral-8x7b",
        "checkpointing": True,
        "zero": {"offload_optimizer": {"device": "cpu"}, "offload_param": {"device": "cpu"}},
    },
    "peak at init": {"stage": 1, "model": "gpt2", "checkpointing": False, "seq_len": 1},
}
PHASES = ["init", "forward", "backward", "step"]


def _phases(device):
    """Those that are shown: saving and loading only where they decide."""
    return PHASES + [device["peak_phase"]] * (device["peak_phase"] not in PHASES)


@pytest.fixture(params=JOBS.values(), ids=JOBS)
def job(request, tmp_path):
    """A job file, for 8 GPUs of 80 GB."""
    said = dict(request.param)
    config = {
        "train_micro_batch_size_per_gpu": 2,
        "bf16": {"enabled": True},
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-4}},
        "zero_optimization": {"stage": said["stage"], **said.get("zero", {})},
    }
    path = tmp_path / "job.yaml"
    path.write_text(
        json.dumps(
            {
                "model": said["model"],
                "deepspeed": config,
                "cluster": {
                    "gpus_per_node": 8,
                    "gpu": "a100-80gb",
                    "host_memory": "1TiB",
                },
                "workload": {
                    "seq_len": said.get("seq_len", 512),
                    "checkpointing": said["checkpointing"],
                    "attention": "eager" if said["model"] == "t5-3b" else "flash",
                },
            }
        )
    )
    return str(path)


def _json(capsys, *arguments):
    main(["check", *arguments, "--format", "json"])
    return json.loads(capsys.readouterr().out)


def test_the_points_are_the_phases_peaks_in_order_and_the_verdicts_peak(job, capsys):
    answer = _json(capsys, job, "--timeline")
    for device, points in answer["timeline"].items():
        phases = _phases(answer["devices"][device])
        order = [phases.index(point["phase"]) for point in points]
        assert order == sorted(order)
        for phase in phases:
            highest = max(p["num_bytes"] for p in points if p["phase"] == phase)
            assert highest == answer["phases"][device][phase]
        peak = max(points, key=lambda p: p["num_bytes"])
        assert peak["num_bytes"] == answer["devices"][device]["peak_bytes"]
        assert peak["phase"] == answer["devices"][device]["peak_phase"]


def test_every_block_is_run_forward_and_then_in_reverse(job, capsys):
    points = _json(capsys, job, "--timeline")["timeline"]["gpu"]
    blocks = {
        phase: [p["block"] for p in points if p["phase"] == phase and p["block"]]
        for phase in ("forward", "backward")
    }
    assert len(blocks["forward"]) >= 12
    assert blocks["backward"] == blocks["forward"][::-1]
    assert len(set(blocks["forward"])) == len(blocks["forward"])


def test_the_plot_marks_the_peak_in_its_phase_and_at_its_height(job, capsys):
    answer = _json(capsys, job)
    main(["check", job, "--timeline"])
    plots = capsys.readouterr().out.split(" over one step")[1:]
    shown = [d for d in answer["devices"].values() if d["peak_bytes"] >= 2**20]
    assert len(plots) == len(shown)
    for plot, device in zip(plots, shown, strict=True):
        lines = plot.splitlines()
        marks, *rows = lines[1:15]
        names = rows.pop()
        assert f"peak {format_gib(device['peak_bytes'])} in {device['peak_phase']}: " in plot
        assert re.findall(r"\|(\w+)", names) == _phases(device)
        column = marks.index("▼")
        assert marks.count("▼") == 1
        phase = names[names.rindex("|", 0, column) + 1 :].split("|")[0].strip()
        assert phase == device["peak_phase"]
        assert _height(rows, column) == max(_height(rows, at) for at in range(len(marks)))


def _height(rows, column):
    """How high the bar of a column is, in eighths of a row."""
    levels = " ▁▂▃▄▅▆▇█"
    cells = [row[column] if column < len(row) else " " for row in rows]
    return sum(levels.index(cell) for cell in cells if cell in levels)


def test_without_the_option_nothing_of_it_is_loaded_or_said(capsys):
    job = ["deepspeed_configs/demo.json", "--model", "gpt2"]
    assert "timeline" not in _json(capsys, *job)
    program = (
        "import sys; from zero_sizer.cli import main;"
        f"main(['check', *{job!r}]);"
        "print([m for m in sys.modules if 'timeline' in m and 'report' in m or m.endswith('plot')])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout.splitlines()[-1] == "[]"
    assert "over one step" not in run.stdout


def _plot(values, **settings):
    columns = [Column(value, value == max(values)) for value in values]
    given = {"width": 60, "limit": None, "label": str, **settings}
    return list(draw([("only", columns)], **given))


def test_a_limit_is_drawn_at_its_height_unless_it_would_flatten_the_plot():
    lines = _plot([600, 1200], limit=600)
    (named,) = [line for line in lines if line.lstrip().startswith("600 ")]
    assert lines.index(named) == 12 - 600 * 12 // 1200
    assert not any("9000" in line for line in _plot([600, 1200], limit=9000))
    above = _plot([600, 1200], limit=2400)
    assert above[1].split("|")[0].strip() == "2400"
    assert "╌" in above[1]


def test_more_columns_than_fit_are_merged_by_their_highest():
    values = [5] * 400
    values[137] = 100
    lines = _plot(values, width=50)
    assert all(len(line) <= 50 for line in lines)
    column = lines[0].index("▼")
    assert lines[1][column] == "█"
    margin = lines[1].index("|") + 1
    assert abs((column - margin) / (50 - margin - 1) - 137 / 400) < 0.03


def test_plain_output_is_ascii():
    assert "\n".join(_plot([1, 5, 3], limit=6, plain=True)).isascii()
