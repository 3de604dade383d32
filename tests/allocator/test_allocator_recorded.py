"""The model against PyTorch 2.13.0's own allocator library: the same bytes after every event."""

import json
from pathlib import Path

import pytest
from support.allocator_cases import first_difference

RECORDING = json.loads((Path(__file__).parents[1] / "data" / "allocator_recorded.json").read_text())
CASES = RECORDING["cases"]


@pytest.mark.parametrize("case", CASES, ids=[case["config"] or "defaults" for case in CASES])
def test_every_event_and_the_last_segments_agree_with_the_library(case):
    assert first_difference(case) == ""


def test_the_recording_reaches_the_rare_paths():
    # a model without these paths could otherwise pass unseen
    rows = [row for case in CASES for row in case["rows"]]
    assert sum(row[0] == "oom" for row in rows) > 20
    assert sum(case["rows"][-1][6] > 0 for case in CASES) > 5  # cache flushed, then tried again
    assert any(int(segment.split()[3]) for case in CASES for segment in case["segments"])
