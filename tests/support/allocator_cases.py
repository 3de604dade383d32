"""Runs a recorded case (tests/data/allocator_recorded.json) through the model and compares."""

from zero_sizer.allocator.caching import CachingAllocator, DeviceOutOfMemoryError
from zero_sizer.allocator.settings import parse_alloc_conf


def first_difference(case):
    """What the model says otherwise than the library, in words; empty if nothing."""
    allocator = CachingAllocator(parse_alloc_conf(case["config"]), capacity=case["total"])
    for number, (event, row) in enumerate(zip(case["events"], case["rows"], strict=True)):
        status = _apply(allocator, event.split())
        point = allocator.point()
        if [status, *point, allocator.retries] != row[:7]:
            return f"event {number} {event!r}: library {row[:7]}, model {[status, *point]}"
    return "" if _segments(allocator) == case["segments"] else "the last segments differ"


def _apply(allocator, words):
    try:
        if words[0] == "a":
            allocator.allocate(int(words[1]), int(words[2]), int(words[3]))
        elif words[0] == "e":
            allocator.empty_cache()
        elif words[0] == "f":
            allocator.set_memory_fraction(float(words[1]))
        elif int(words[1]) in allocator.live:
            allocator.free(int(words[1]))
        else:
            return "absent"
    except DeviceOutOfMemoryError:
        return "oom"
    return "ok"


def _segments(allocator):
    lines = []
    for segment in allocator.snapshot():
        blocks = " ".join(
            f"{block.size}:1:{block.requested}" if block.owner is not None else f"{block.size}:0:0"
            for block in segment.blocks
        )
        lines.append(
            f"{segment.address} {segment.size} {int(segment.is_large)} "
            f"{int(segment.is_expandable)} {segment.stream} {blocks}"
        )
    return lines
