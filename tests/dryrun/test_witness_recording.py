"""Recordings: what is written can be read, and what is not a recording is said to be none."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zero_sizer.dryrun import recording
from zero_sizer.dryrun.recording import CATEGORIES, LiveBuffer, PhaseRecord, RankRecord, Recording
from zero_sizer.errors import InputError

SIZES = st.integers(min_value=0, max_value=2**50)
BUFFERS = st.builds(
    LiveBuffer,
    name=st.text(max_size=8),
    category=st.sampled_from(CATEGORIES),
    device=st.sampled_from(["gpu", "host"]),
    pinned=st.booleans(),
    num_bytes=SIZES,
    num_storages=st.integers(1, 9),
)
PHASES = st.builds(
    PhaseRecord,
    name=st.sampled_from(["init", "forward", "backward", "step"]),
    step=st.integers(0, 3),
    micro_step=st.integers(0, 3),
    device=st.dictionaries(
        st.sampled_from(["gpu", "host"]),
        st.dictionaries(st.sampled_from(["allocated", "max_allocated"]), SIZES),
    ),
    live=st.lists(BUFFERS, max_size=3).map(tuple),
)
RECORDINGS = st.lists(st.lists(PHASES, min_size=1, max_size=3), min_size=1, max_size=3).map(
    lambda ranks: Recording(
        how="launched",
        versions={"torch": "2"},
        world_size=len(ranks),
        job={"layers": None},
        ranks=tuple(
            RankRecord(rank=index, phases=tuple(phases)) for index, phases in enumerate(ranks)
        ),
    )
)


@given(RECORDINGS)
def test_json_gives_back_the_recording(original):
    assert recording.from_json(json.loads(json.dumps(original.to_json()))) == original


@given(RECORDINGS)
def test_phases_and_peak_are_those_of_the_lowest_rank(original):
    values = original.to_json()
    assert values["rank"] == 0
    assert len(values["phases"]) == len(original.ranks[0].phases)
    figures = [f for p in values["phases"] for f in p["device"].get("gpu", {}).values()]
    assert values["peak"].get("gpu", 0) == max(figures, default=0)


@given(PHASES)
def test_bytes_by_category_and_device_add_up(phase):
    whole = phase.num_bytes()
    assert whole == sum(phase.num_bytes(category=c) for c in CATEGORIES)
    assert whole == phase.num_bytes(device="gpu") + phase.num_bytes(device="host")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"schema_version": 2}', '{"schema_version": 1, "how": "x"}', "null"],
)
def test_what_is_no_recording_is_one_line_with_the_file(tmp_path, text):
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"not a recording|broken JSON") as caught:
        recording.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        recording.read(tmp_path / "none.json")
