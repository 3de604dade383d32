"""Logs of memory failures as many programs print them: ``tests/data/failure_logs.json``."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zero_sizer.logs import log

SHAPES = json.loads((Path(__file__).parents[1] / "data" / "failure_logs.json").read_text())
LINES = [line for shape in SHAPES for line in shape["lines"]]


def told(found):
    """What a log tells, in the words of the table."""
    cause = found.cause
    if cause is None:
        return {"kind": None}
    return {
        "kind": cause.kind.value,
        "device": cause.device.value,
        "phase": cause.phase and cause.phase.value,
        "line": cause.line,
        "rank": cause.rank,
        "gpu": cause.gpu,
        "requested": cause.requested and cause.requested.expected,
        "total": cause.total,
        "free": cause.free,
        "allocated": cause.allocated,
        "idle": cause.idle,
        "in_use": cause.in_use,
        "others": cause.others,
        "resident": cause.resident,
        "fragmented": cause.is_fragmented,
        "from_stack": cause.is_from_stack,
        "count": sum(symptom.kind is cause.kind for symptom in found.symptoms),
    }


def test_there_are_many_shapes_each_with_a_source():
    assert len({shape["id"] for shape in SHAPES}) == len(SHAPES) >= 30
    assert all(shape["source"] for shape in SHAPES)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape["id"])
def test_a_shape_is_read(shape):
    found = told(log.of_lines(shape["lines"], shape["id"]))
    assert {name: found[name] for name in shape["expect"]} == shape["expect"]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape["id"])
def test_colours_and_what_stands_around_it_change_nothing(shape):
    """Timestamps of a log collector, escapes of a terminal, progress bars."""
    bars = [f"  3%|▎         | {n}/100 [00:01<00:30,  3.1it/s]" for n in range(50)]
    lines = [*bars, *(f"\x1b[31m{line}\x1b[0m" for line in shape["lines"]), *bars]
    expected = dict(shape["expect"])
    if "line" in expected:
        expected["line"] += len(bars)
    found = told(log.of_lines(lines, shape["id"]))
    assert {name: found[name] for name in expected} == expected


def test_the_first_that_says_why_is_the_cause():
    """Once one rank is out of memory, the launcher kills the others."""
    killed = next(s for s in SHAPES if s["id"] == "launcher-minus-9")["lines"]
    gpu = next(s for s in SHAPES if s["id"] == "torch-2.1-init")["lines"]
    found = log.of_lines([*killed, *gpu], "log")
    assert found.cause.kind.value == "gpu-out-of-memory"
    assert len(found.symptoms) == 2


@settings(max_examples=200)
@given(st.lists(st.one_of(st.text(), st.sampled_from(LINES)), max_size=30))
def test_no_text_is_too_odd(lines):
    found = log.of_lines(lines, "log")
    assert found.num_lines == len(lines)
    assert all(symptom.line <= len(lines) for symptom in found.symptoms)


@settings(max_examples=200)
@given(st.sampled_from(LINES), st.data())
def test_a_mutilated_line_is_no_fault(line, data):
    at, size = data.draw(st.integers(0, len(line))), data.draw(st.integers(0, 40))
    other = line[:at] + data.draw(st.text(max_size=20)) + line[at + size :]
    log.of_lines([re.sub(r"\d", "9", other), other * 50], "log")


def test_what_a_log_repeats_for_ever_is_kept_once_in_bounds():
    lines = [SHAPES[0]["lines"][-1]] * 5_000
    assert len(log.of_lines(lines, "log").symptoms) == 1_000
