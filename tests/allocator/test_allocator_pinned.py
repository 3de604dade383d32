import json
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zero_sizer.allocator.pinned import PinnedAllocator, replay_pinned
from zero_sizer.allocator.settings import parse_alloc_conf
from zero_sizer.units import MIB

CASES = json.loads(
    (Path(__file__).parents[1] / "data" / "allocator_pinned_recorded.json").read_text()
)


class Event(NamedTuple):
    kind: str
    block: int
    num_bytes: int = 0
    stream: int = 0


def events_of(lines):
    kinds = {"a": "alloc", "d": "free", "e": "empty_cache"}
    for line in lines:
        kind, *numbers = line.split()
        yield Event(kinds[kind], *map(int, numbers or ["0"]))


@pytest.mark.parametrize("case", CASES["cases"], ids=lambda case: case["config"] or "defaults")
def test_bytes_in_use_and_locked_agree_with_pytorchs_allocator(case):
    allocator = PinnedAllocator(parse_alloc_conf(case["config"]))
    for event, row in zip(events_of(case["events"]), case["rows"], strict=True):
        allocator.apply(event)
        assert [allocator.allocated, allocator.reserved] == row, event


def test_a_freed_buffer_stays_locked_and_serves_its_bucket():
    # GIVEN 5 MB, rounded to 8 MiB, freed
    allocator = PinnedAllocator()
    allocator.allocate(1, 5_000_000)
    allocator.free(1)
    assert (allocator.allocated, allocator.reserved) == (0, 8 * MIB)
    # WHEN 6 MB and 3 MB are pinned: the first reuses the 8 MiB, the second takes 4 MiB more
    allocator.allocate(2, 6_000_000)
    allocator.allocate(3, 3_000_000)
    assert (allocator.allocated, allocator.reserved) == (12 * MIB, 12 * MIB)
    # THEN only emptying the cache gives freed buffers back
    allocator.free(3)
    allocator.empty_cache()
    assert (allocator.reserved, allocator.peak_reserved) == (8 * MIB, 12 * MIB)


def test_native_backend_locks_what_is_asked_for_and_frees_at_once():
    allocator = PinnedAllocator(native=True)
    allocator.allocate(1, 5_000_000)
    allocator.allocate(2, 3_000_001)
    assert allocator.reserved == 8_000_001
    allocator.free(1)
    assert (allocator.reserved, allocator.peak_reserved) == (3_000_001, 8_000_001)


def test_requests_over_the_threshold_are_not_rounded():
    allocator = PinnedAllocator(parse_alloc_conf("pinned_max_round_threshold_mb:3"))
    allocator.allocate(1, 3 * MIB)  # at the threshold: 4 MiB
    allocator.allocate(2, 5_000_000)
    assert allocator.reserved == 4 * MIB + 5_000_000


def test_unrounded_sizes_share_a_bucket_as_in_pytorch():
    # the header's allocator answered 20000000 for both requests
    allocator = PinnedAllocator(parse_alloc_conf("pinned_max_round_threshold_mb:16"))
    allocator.allocate(1, 20_000_000)
    allocator.free(1)
    allocator.allocate(2, 30_000_000)
    assert allocator.reserved == 20_000_000


def test_reserved_segment_is_taken_whole_and_never_given_back():
    allocator = PinnedAllocator(parse_alloc_conf("pinned_reserve_segment_size_mb:8"))
    allocator.allocate(1, 3 * MIB)  # rounded to 4 of the 8 MiB
    assert allocator.reserved == 8 * MIB
    allocator.allocate(2, 5 * MIB)  # rounded to 8 MiB: does not fit in the 4 left
    assert allocator.reserved == 16 * MIB
    allocator.free(1)
    allocator.free(2)
    allocator.empty_cache()
    assert allocator.reserved == 8 * MIB


@given(st.lists(st.integers(0, 40 * MIB), max_size=30), st.booleans())
def test_freeing_and_emptying_leaves_nothing_locked(sizes, native):
    events = [Event("alloc", i, n) for i, n in enumerate(sizes)]
    full = replay_pinned(events, native=native)
    assert sum(sizes) <= full.allocated <= full.reserved
    assert full.reserved < 2 * sum(sizes) + 1 if not native else full.reserved == sum(sizes)
    freed = [*events, *(Event("free", i) for i, _ in enumerate(sizes)), Event("empty_cache", 0)]
    assert replay_pinned(freed, native=native).reserved == 0


@pytest.mark.parametrize(
    "events",
    [[Event("free", 1)], [Event("alloc", 1, 8), Event("alloc", 1, 8)], [Event("resize", 1, 8)]],
)
def test_a_trace_that_cannot_be_is_refused(events):
    with pytest.raises(ValueError, match=r"live|kind"):
        replay_pinned(events)
