"""What must hold of the allocator for any trace."""

import time
from contextlib import suppress
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zero_sizer.allocator.caching import CachingAllocator, DeviceOutOfMemoryError, replay
from zero_sizer.allocator.settings import parse_alloc_conf
from zero_sizer.units import MIB

CONFS = [
    "",
    "expandable_segments:True",
    "max_split_size_mb:32",
    "roundup_power2_divisions:4",
    "large_segment_size_mb:64",
    "garbage_collection_threshold:0.5,per_process_memory_fraction:0.9",
]
sizes = st.one_of(
    st.integers(1, 4096), st.integers(1, 2 * MIB), st.integers(MIB, 90 * MIB), st.just(64 * MIB)
)
# a step is an allocation on a stream, the free of some live block, or empty_cache
steps = st.lists(
    st.one_of(
        st.tuples(sizes, st.sampled_from([0, 7])),
        st.integers(0, 10**6),
        st.none(),
    ),
    max_size=60,
)


class Event(NamedTuple):
    kind: str
    block: int
    num_bytes: int = 0
    stream: int = 0


def events_of(script):
    live, events = [], []
    for number, step in enumerate(script):
        if step is None:
            events.append(Event("empty_cache", 0))
        elif isinstance(step, tuple):
            live.append(number)
            events.append(Event("alloc", number, *step))
        elif live:
            events.append(Event("free", live.pop(step % len(live))))
    return events


def run(allocator, script):
    """Applies a script, skipping what does not fit and its frees; yields after each event."""
    for event in events_of(script):
        if event.kind == "free" and event.block not in allocator.live:
            continue
        with suppress(DeviceOutOfMemoryError):
            allocator.apply(event)
        yield allocator.point()


@settings(max_examples=50)
@given(steps, st.sampled_from(CONFS), st.sampled_from([None, 300 * MIB]))
def test_the_figures_never_contradict_each_other(script, conf, capacity):
    allocator = CachingAllocator(parse_alloc_conf(conf), capacity=capacity)
    highest = 0
    for point in run(allocator, script):
        blocks = [block for segment in allocator.snapshot() for block in segment.blocks]
        used = sum(block.size for block in blocks if block.owner is not None)
        free = [block.size for block in blocks if block.owner is None]
        assert (point.allocated, point.reserved) == (used, used + sum(free))
        assert point.largest_free_block == max(free, default=0)
        assert point.inactive_split <= sum(free)
        assert capacity is None or point.reserved <= capacity
        highest = max(highest, point.reserved)
        assert allocator.peak.reserved >= highest
        assert allocator.peak.allocated >= point.allocated


@settings(max_examples=50)
@given(steps, st.sampled_from(CONFS))
def test_blocks_tile_their_segments_and_no_two_free_ones_touch(script, conf):
    allocator = CachingAllocator(parse_alloc_conf(conf))
    for _ in run(allocator, script):
        pass
    for segment in allocator.snapshot():
        address = segment.address
        for left, right in zip(segment.blocks, segment.blocks[1:], strict=False):
            assert left.owner is not None or right.owner is not None
        for block in segment.blocks:
            assert block.address == address
            address += block.size
        assert address == segment.address + segment.size


@settings(max_examples=50)
@given(steps, st.sampled_from(CONFS), st.sampled_from([None, 300 * MIB]))
def test_freeing_everything_makes_segments_whole_and_emptying_leaves_nothing(
    script, conf, capacity
):
    allocator = CachingAllocator(parse_alloc_conf(conf), capacity=capacity)
    for _ in run(allocator, script):
        pass
    for owner in list(allocator.live):
        allocator.free(owner)
    point = allocator.point()
    assert (point.allocated, point.inactive_split) == (0, 0)
    assert all(len(segment.blocks) == 1 for segment in allocator.snapshot())
    allocator.empty_cache()
    assert allocator.point() == (0, 0, 0, 0, 0)


@settings(max_examples=50)
@given(steps)
def test_a_fresh_allocator_reserves_no_less_than_the_tensors_need(script):
    events = events_of(script)
    live, highest = {}, 0
    for event in events:
        if event.kind == "alloc":
            live[event.block] = event.num_bytes
        elif event.kind == "free":
            del live[event.block]
        highest = max(highest, sum(live.values()))
    assert replay(events).peak.reserved >= highest


@pytest.mark.slow
@given(st.lists(st.integers(1, 90 * MIB), max_size=40))
def test_expandable_segments_waste_less_than_one_page_per_pool_when_nothing_is_freed(requests):
    events = [Event("alloc", number, size) for number, size in enumerate(requests)]
    allocator = CachingAllocator(parse_alloc_conf("expandable_segments:True"))
    for event in events:
        allocator.apply(event)
    point = allocator.point()
    # small pool: pages of 2 MiB, the last perhaps split over two; large pool: pages of 20 MiB
    assert point.reserved - point.allocated < 2 * MIB * (1 + len(requests)) + 20 * MIB
    large = [size for size in requests if size > MIB]
    if len(large) == len(requests):
        assert point.reserved - point.allocated < 20 * MIB
        assert point.reserved <= replay(events).end.reserved + 20 * MIB


@pytest.mark.slow
@pytest.mark.parametrize("conf", CONFS[:3])
def test_three_hundred_thousand_events_take_seconds(conf):
    events = []
    for number in range(150_000):
        events.append(Event("alloc", number, 1 + number * 7919 % (80 * MIB)))
        if number >= 200:
            events.append(Event("free", number - 200))
    start = time.process_time()
    replay(events, parse_alloc_conf(conf))
    assert time.process_time() - start < 10  # about 1.5 s on an idle core
