import pickle
import re
from typing import NamedTuple

import pytest

from zero_sizer.allocator.caching import replay
from zero_sizer.allocator.settings import parse_alloc_conf
from zero_sizer.allocator.snapshot import build_snapshot, write_snapshot
from zero_sizer.errors import InputError
from zero_sizer.units import MIB


class Event(NamedTuple):
    kind: str
    block: int
    num_bytes: int = 0
    stream: int = 0
    phase: str = ""
    module: str = ""


# 5 MB of weights, 30 MiB of gradients that go again, 3 kB of a loss; the cache is then emptied
TRACE = [
    Event("alloc", 1, 5_000_000, 0, "init", "layers.0"),
    Event("alloc", 2, 30 * MIB, 0, "backward", "layers.0"),
    Event("alloc", 3, 3_000, 0, "forward", "loss"),
    Event("free", 2),
    Event("empty_cache", 0),
]


def frames_of(event):
    return (event.module, event.phase)


@pytest.mark.parametrize("conf", ["", "expandable_segments:True"])
def test_segments_hold_the_allocators_figures(conf):
    settings = parse_alloc_conf(conf)
    snapshot = build_snapshot(TRACE, settings, frames_of=frames_of)
    end = replay(TRACE, settings).end
    segments = snapshot["segments"]
    assert sum(segment["total_size"] for segment in segments) == end.reserved
    assert sum(segment["allocated_size"] for segment in segments) == end.allocated
    assert sum(segment["requested_size"] for segment in segments) == 5_003_000
    for segment in segments:
        assert sum(block["size"] for block in segment["blocks"]) == segment["total_size"]


def test_blocks_carry_what_allocated_them():
    snapshot = build_snapshot(TRACE, frames_of=frames_of)
    held = {
        block["requested_size"]: [frame["name"] for frame in block["frames"]]
        for segment in snapshot["segments"]
        for block in segment["blocks"]
        if block["state"] == "active_allocated"
    }
    assert held == {5_000_000: ["layers.0", "init"], 3_000: ["loss", "forward"]}


def test_history_tells_the_story_in_order():
    (history,) = build_snapshot(TRACE)["device_traces"]
    assert [(entry["action"], entry["size"]) for entry in history] == [
        ("segment_alloc", 20 * MIB),
        ("alloc", 5_000_000),
        ("segment_alloc", 30 * MIB),
        ("alloc", 30 * MIB),
        ("segment_alloc", 2 * MIB),
        ("alloc", 3_000),
        ("free_requested", 30 * MIB),
        ("free_completed", 30 * MIB),
        ("segment_free", 30 * MIB),
    ]


def test_running_out_ends_the_history_with_the_free_bytes():
    events = [Event("alloc", 1, 30 * MIB), Event("alloc", 2, 40 * MIB), Event("free", 1)]
    snapshot = build_snapshot(events, capacity=50 * MIB)
    last = snapshot["device_traces"][0][-1]
    assert (last["action"], last["size"], last["device_free"]) == ("oom", 40 * MIB, 20 * MIB)
    assert "addr" not in last
    assert snapshot["segments"][0]["allocated_size"] == 30 * MIB


def test_a_folder_is_no_file_to_write_to(tmp_path):
    with pytest.raises(InputError, match=r"cannot be written: Is a directory"):
        write_snapshot(tmp_path, build_snapshot(TRACE))


@pytest.mark.slow
@pytest.mark.parametrize("conf", ["", "expandable_segments:True"])
def test_pytorchs_viewer_opens_the_file_and_counts_the_same(tmp_path, conf, capsys):
    viz = pytest.importorskip("torch.cuda._memory_viz")
    path = tmp_path / "snapshot.pickle"
    write_snapshot(path, build_snapshot(TRACE, parse_alloc_conf(conf), frames_of=frames_of))
    snapshot = pickle.loads(path.read_bytes())  # noqa: S301
    end = replay(TRACE, parse_alloc_conf(conf)).end

    # segsum checks that every segment's parts add up, and raises if not
    summary = viz.segsum(snapshot)
    assert f"total_reserved: {viz.Bytes(end.reserved)}" in summary
    assert f"total_allocated: {viz.Bytes(5_003_000)}" in summary  # as requested, not as rounded

    # flame graph lines: stack and bytes; all but the gaps are what was asked for
    lines = viz.memory(snapshot, format_flamegraph=str).splitlines()
    numbers = {line.rpartition(" ")[0]: int(line.rpartition(" ")[2]) for line in lines}
    asked = {key: n for key, n in numbers.items() if "simulated" in key}
    assert sorted(asked.values()) == [3_000, 5_000_000]
    assert any("init" in key and "layers.0" in key for key in asked)

    before = build_snapshot(TRACE[:2], parse_alloc_conf(conf), frames_of=frames_of)
    viz.compare(before["segments"], snapshot["segments"], format_flamegraph=str)
    only = re.findall(r"only_(\w+) = \[(.*)\]", capsys.readouterr().out)
    assert dict(only).keys() == {"before", "after"}
    assert dict(only)["after"]  # the loss's segment came later

    story = viz.trace(snapshot)
    assert story.count("cudaMalloc(") == (3 if not conf else 0)
    assert "del" in story

    for plot in (viz.trace_plot(snapshot), viz.segment_plot(snapshot)):
        assert "MemoryViz.js" in plot
