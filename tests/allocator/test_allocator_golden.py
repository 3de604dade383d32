"""Traces small enough to follow by hand; the arithmetic stands beside each expected figure."""

from typing import NamedTuple

import pytest

from zero_sizer.allocator.caching import CachingAllocator, DeviceOutOfMemoryError, replay
from zero_sizer.allocator.settings import AllocatorSettings, parse_alloc_conf
from zero_sizer.units import KIB, MIB


class Event(NamedTuple):
    kind: str
    block: int
    num_bytes: int = 0
    stream: int = 0


def allocator_with(*sizes, conf="", capacity=None):
    """Allocations 1, 2, ... of ``sizes`` bytes, in order."""
    allocator = CachingAllocator(parse_alloc_conf(conf), capacity=capacity)
    for number, size in enumerate(sizes, start=1):
        allocator.allocate(number, size)
    return allocator


@pytest.mark.parametrize(
    ("request_bytes", "block", "segment"),
    [
        (1, 512, 2 * MIB),  # at least 512 bytes; small requests share 2 MiB segments
        (513, 1024, 2 * MIB),
        (MIB, MIB, 2 * MIB),  # 1 MiB is the largest small request
        (MIB + 1, MIB + 512, 20 * MIB),  # from there to 10 MiB: 20 MiB segments
        (10 * MIB - 1, 10 * MIB, 10 * MIB),  # rounded to 512 first, then no longer below 10 MiB
        (10 * MIB - 512, 10 * MIB - 512, 20 * MIB),
        (10 * MIB + 1, 10 * MIB + 512, 12 * MIB),  # then the next 2 MiB
    ],
)
def test_rounding_and_segment_size(request_bytes, block, segment):
    point = allocator_with(request_bytes).point()
    # the large pool hands a remainder of at most 1 MiB out with the block
    remainder = segment - block
    kept = 0 if block <= MIB or remainder > MIB else remainder
    assert (point.allocated, point.reserved) == (block + kept, segment)


def test_small_requests_share_a_segment_and_coalesce():
    # GIVEN 1000 B -> 1024 and 600000 B -> 1172 x 512 = 600064, in one 2 MiB segment
    allocator = allocator_with(1000, 600_000)
    rest = 2 * MIB - 1024 - 600_064  # 1496064
    assert allocator.point() == (601_088, 2 * MIB, 601_088, rest, rest)
    # WHEN the first goes, its 1024 bytes are a hole in front of the second
    allocator.free(1)
    assert allocator.point() == (600_064, 2 * MIB, 600_064, rest + 1024, rest)
    # THEN the second merges with both neighbours and the segment is whole: nothing is split
    allocator.free(2)
    assert allocator.point() == (0, 2 * MIB, 0, 0, 2 * MIB)
    allocator.empty_cache()
    assert allocator.point() == (0, 0, 0, 0, 0)


def test_best_fit_takes_the_smallest_cached_block_that_holds_the_request():
    # GIVEN free segments of 12, 14 and 16 MiB
    allocator = allocator_with(12 * MIB, 16 * MIB, 14 * MIB)
    for number in (1, 2, 3):
        allocator.free(number)
    # WHEN 13 MiB are asked for, THEN the 14 MiB segment serves, whole: 1 MiB is not split off
    allocator.allocate(4, 13 * MIB)
    assert allocator.point() == (14 * MIB, 42 * MIB, 14 * MIB, 0, 16 * MIB)


def test_a_large_remainder_is_split_only_above_one_mib():
    allocator = allocator_with(20 * MIB)
    allocator.free(1)
    allocator.allocate(2, 20 * MIB - MIB - 512)  # 1 MiB + 512 left: split off
    assert allocator.point().inactive_split == MIB + 512


def test_a_stream_does_not_take_another_streams_memory():
    allocator = allocator_with(30 * MIB)
    allocator.free(1)
    allocator.allocate(2, 30 * MIB, stream=7)
    assert allocator.point().reserved == 60 * MIB


def test_zero_bytes_take_no_memory():
    allocator = allocator_with(0)
    allocator.free(1)
    assert allocator.point() == (0, 0, 0, 0, 0)


def test_out_of_memory_frees_the_cache_first():
    # GIVEN 100 MiB, of which 40 are cached and 40 in use
    allocator = allocator_with(40 * MIB, 40 * MIB, capacity=100 * MIB)
    allocator.free(1)
    # WHEN 50 MiB don't fit, the cached 40 go back and it works
    allocator.allocate(3, 50 * MIB)
    assert (allocator.point().reserved, allocator.retries) == (90 * MIB, 1)
    # THEN 20 MiB more cannot be had by anything
    with pytest.raises(DeviceOutOfMemoryError) as caught:
        allocator.allocate(4, 20 * MIB)
    assert (caught.value.allocated, caught.value.device_free) == (90 * MIB, 10 * MIB)


def test_fragments_of_a_shared_segment_cannot_be_given_back():
    # 2 x 8 MiB share a 20 MiB segment; with one freed, 12 MiB are free but the segment must stay
    allocator = allocator_with(8 * MIB, 8 * MIB, capacity=20 * MIB)
    allocator.free(1)
    assert allocator.point().inactive_split == 12 * MIB
    with pytest.raises(DeviceOutOfMemoryError):
        allocator.allocate(3, 10 * MIB)


def test_expandable_segments_give_pages_back_and_grow_where_there_is_room():
    # the same with pages of 20 MiB: the segment grows instead
    allocator = allocator_with(8 * MIB, 8 * MIB, conf="expandable_segments:True")
    assert allocator.point() == (16 * MIB, 20 * MIB, 16 * MIB, 0, 4 * MIB)
    allocator.allocate(3, 10 * MIB)  # 4 MiB are left: one page more, 14 MiB left over
    assert allocator.point() == (26 * MIB, 40 * MIB, 26 * MIB, 0, 14 * MIB)
    # WHEN all is free, whole pages go back
    for number in (1, 2, 3):
        allocator.free(number)
    allocator.empty_cache()
    assert allocator.point() == (0, 0, 0, 0, 0)


def test_expandable_segments_keep_partly_used_pages():
    # 3 x 20 MiB in 3 pages; the middle one and a 1 MiB + 512 B tail page
    allocator = allocator_with(*[20 * MIB] * 3, MIB + 512, conf="expandable_segments:True")
    assert allocator.point().reserved == 80 * MIB
    for number in (1, 3):
        allocator.free(number)
    allocator.empty_cache()  # pages 1 and 3 go, 2 and 4 are used
    assert allocator.point() == (21 * MIB + 512, 40 * MIB, 21 * MIB + 512, 0, 19 * MIB - 512)


def test_max_split_size_keeps_oversize_blocks_whole():
    # GIVEN a free block of 64 MiB under max_split_size_mb:32
    allocator = allocator_with(64 * MIB, conf="max_split_size_mb:32")
    allocator.free(1)
    # a 20 MiB request may not cut it up
    allocator.allocate(2, 20 * MIB)
    assert allocator.point().reserved == 84 * MIB
    # a 40 MiB request may not have it either: 64 >= 40 + 20, too much would lie idle
    allocator.allocate(3, 40 * MIB)
    assert allocator.point().reserved == 124 * MIB
    # a 50 MiB request may, and gets all of it: 64 < 50 + 20
    allocator.allocate(4, 50 * MIB)
    assert allocator.point() == (124 * MIB, 124 * MIB, 124 * MIB, 0, 0)


@pytest.mark.parametrize(
    ("conf", "cached", "wanted", "reused"),
    [
        ("max_split_size_mb:32", 70 * MIB, 50 * MIB, False),  # 70 >= 50 + 20
        ("max_split_size_mb:32", 70 * MIB, 50 * MIB + 512, True),  # 70 < 50 + 20 + a bit
        # the 20 MiB follow large_segment_size_mb: 76 < 50 + 40, 44 >= 30 + 12, 40 < 30 + 12
        ("large_segment_size_mb:40,max_split_size_mb:40", 76 * MIB, 50 * MIB, True),
        ("large_segment_size_mb:12,max_split_size_mb:20", 44 * MIB, 30 * MIB, False),
        ("large_segment_size_mb:12,max_split_size_mb:20", 40 * MIB, 30 * MIB, True),
    ],
)
def test_an_oversize_block_serves_requests_not_much_smaller(conf, cached, wanted, reused):
    allocator = allocator_with(cached, conf=conf)
    allocator.free(1)
    allocator.allocate(2, wanted)
    assert (allocator.point().reserved == cached) == reused


def test_no_more_oversize_blocks_go_than_the_request_needs():
    # GIVEN 160 MiB with free oversize blocks of 40, 44 and 48 MiB; 90 MiB are wanted
    sizes = (40 * MIB, 44 * MIB, 48 * MIB)
    allocator = allocator_with(*sizes, conf="max_split_size_mb:32", capacity=160 * MIB)
    for number in (1, 2, 3):
        allocator.free(number)
    allocator.allocate(4, 90 * MIB)
    # THEN the largest go until 90 are reached: 48 + 44 = 92; the 40 stay
    assert (allocator.point().reserved, allocator.retries) == (130 * MIB, 0)


def test_oversize_blocks_go_first_when_memory_is_short():
    # GIVEN 200 MiB: a free oversize block of 100, a free one of 20, 40 in use
    allocator = allocator_with(
        100 * MIB, 20 * MIB, 40 * MIB, conf="max_split_size_mb:32", capacity=200 * MIB
    )
    allocator.free(1)
    allocator.free(2)
    # WHEN 60 MiB are wanted, the 100 MiB block (>= 60 + 20) goes back; the 20 MiB block stays
    allocator.allocate(4, 60 * MIB)
    assert (allocator.point().reserved, allocator.retries) == (120 * MIB, 0)


def test_garbage_collection_gives_back_old_blocks_above_the_threshold():
    # limit 100 MiB, threshold 60 MiB; free blocks of 20, 22 and 24 MiB: 66 MiB reserved
    conf = "garbage_collection_threshold:0.6,per_process_memory_fraction:0.5"
    allocator = allocator_with(20 * MIB, 22 * MIB, 24 * MIB, conf=conf, capacity=200 * MIB)
    for number in (1, 2, 3):
        allocator.free(number)
    # 30 MiB fit none of them. All were cached at the same age: all are at least of average age
    allocator.allocate(4, 30 * MIB)
    assert allocator.point().reserved == 30 * MIB


def test_roundup_power2_divisions_follow_the_documented_example():
    # 1200 with 4 divisions between 1024 and 2048: 1024, 1280, 1536, 1792 -> 1280; in KiB here,
    # as sizes of at most 512 x divisions are rounded to 512 bytes instead
    settings = AllocatorSettings(roundup_power2_divisions=(4,) * 16)
    assert settings.round_size(1200 * KIB) == 1280 * KIB
    assert settings.round_size(1280 * KIB) == 1280 * KIB
    assert settings.round_size(2000) == 2048


def test_replay_says_where_it_ran_out():
    events = [Event("alloc", 1, 40 * MIB), Event("free", 1), Event("alloc", 2, 60 * MIB)]
    result = replay(events, capacity=50 * MIB, keep_points=True)
    assert result.out_of_memory is not None
    assert (result.stopped_at, result.retries) == (2, 1)
    assert [point.reserved for point in result.points] == [40 * MIB, 40 * MIB]
    # the cache was emptied in vain; the peak remembers it
    assert (result.peak.reserved, result.end.reserved) == (40 * MIB, 0)


@pytest.mark.parametrize(
    "events",
    [
        [Event("free", 1)],
        [Event("alloc", 1, 8), Event("alloc", 1, 8)],
        [Event("alloc", 1, -8)],
        [Event("resize", 1, 8)],
    ],
)
def test_a_trace_that_cannot_be_is_refused(events):
    with pytest.raises(ValueError, match=r"live|kind"):
        replay(events)
