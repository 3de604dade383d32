"""Text at a terminal keeps to its width, whatever is asked."""

import json
import re

import pytest

from zero_sizer import cli

CONFIG = {
    "train_micro_batch_size_per_gpu": 4,
    "bf16": {"enabled": True},
    "optimizer": {"type": "AdamW"},
    "zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}},
}
ON = ("-g", "a100-40gb", "-p", "8", "-s", "2048")
QUESTIONS = {
    "check": ("check", "ds.json", "-m", "llama-3-8b", *ON, "--timeline", "--no-checkpointing"),
    "inference": ("check", "-m", "llama-3-8b", *ON[:4], "--task", "inference", "--prompt", "512"),
    "choose": ("choose", "ds.json", "-m", "llama-3.2-1b", *ON, "--host-memory", "512GiB"),
    "largest": (
        "choose",
        "ds.json",
        "-m",
        "gpt2",
        *ON[:4],
        "-s",
        "512",
        "--largest",
        "micro-batch",
    ),
    "size": ("size", "-m", "gpt2", *ON[:4], "-s", "512", "--max-nodes", "1"),
    "crosscheck": ("crosscheck", "ds.json", "-m", "gpt2", *ON[:4], "-s", "512", "--with", "rules"),
    "gpus": ("gpus",),
}
BREAK_AT_60 = (
    "check",
    "gpus",
)  # keys of a config longer than a column; names of workstations' cards


@pytest.mark.slow
@pytest.mark.parametrize("question", QUESTIONS)
def test_lines_are_as_wide_as_the_terminal_or_less(question, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ds.json").write_text(json.dumps(CONFIG))
    said, words = {}, {}
    for columns in (60, 80, 120):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert cli.main([*QUESTIONS[question]]) in (0, 1, 3)
        said[columns] = capsys.readouterr().out
        wide = [line for line in said[columns].splitlines() if len(line) > columns]
        assert wide == [], columns
        words[columns] = set(re.findall(r"[A-Za-z]{2,}", said[columns]))
    assert words[80] <= words[120]  # none is broken
    if question not in BREAK_AT_60:
        assert words[60] <= words[120]
    if question != "check":  # whose plot shows as many places as there is room
        figures = [set(re.findall(r"\d+\.\d\d\b", text)) for text in said.values()]
        assert figures[0] == figures[1] == figures[2] != set()
