"""Room that PyTorch's caching allocator wants beside what is allocated.

It serves a request from one piece of free memory of the request's own stream, and gives nothing
back before the device is full. The shares are of replayed jobs of whole models, two steps each, by
``benchmarks/reserve.py``; the table is in benchmarks/results.md.
"""

from zero_sizer.findings import Finding, Severity
from zero_sizer.hardware.device import Device
from zero_sizer.ledger.capacity import FLAG, Capacity
from zero_sizer.ledger.verdict import Need
from zero_sizer.units import format_gib

JOBS = 80
NEEDED = (0.083, 0.34)
"""Shares by which the smallest device that was large enough was larger than the most allocated:
in the median and at most."""
NEEDED_EXPANDABLE = 0.03
"""The most of it with ``expandable_segments``."""


def tight(peak: int, need: Need, there: Capacity) -> list[Finding]:
    """A GPU that has more than is needed, and less than the allocator may need with its holes."""
    if there.num_bytes is None or not peak:
        return []
    median, most = (int(peak * share) for share in NEEDED)
    free = there.num_bytes - peak - there.outside.expected
    if need.high is None or need.high > there.num_bytes or free >= most:
        return []
    return [
        Finding(
            code="fragmentation",
            severity=Severity.NOTE,
            key=FLAG[Device.GPU],
            message=f"{format_gib(free)} stay free of each GPU beside the peak. PyTorch's "
            f"allocator leaves holes: in {JOBS} replayed jobs it needed {NEEDED[0]:.0%} more than "
            f"was allocated in the median, here {format_gib(median)}, and {NEEDED[1]:.0%} at most, "
            f"{format_gib(most)}",
            remedy="PYTORCH_ALLOC_CONF=expandable_segments:True needed "
            f"{NEEDED_EXPANDABLE:.0%} at most; `zero-sizer dryrun --how simulated` replays this "
            "job's allocator",
        )
    ]
