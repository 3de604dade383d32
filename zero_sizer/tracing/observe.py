"""Observations of one trace as a whole, to hold a profile against."""

from zero_sizer.tracing import sections
from zero_sizer.tracing.recorder import Made, Mark
from zero_sizer.tracing.step import Trace
from zero_sizer.units import round_up
from zero_sizer.util.records import dataclass

_BLOCK = 512


@dataclass(frozen=True, kw_only=True)
class Observed:
    """Levels of one traced step, in bytes, each storage rounded as torch's allocator does.

    Attributes:
        saved: held between forward and backward.
        forward_peak: highest level of the forward.
        backward_peak: highest level of the backward, finished parameter gradients left out.
        flops: of both.
    """

    saved: int
    forward_peak: int
    backward_peak: int
    flops: int


def observe(trace: Trace, owners: frozenset[str]) -> Observed:
    """Adds up ``trace``; ``owners`` are the modules that own parameters."""
    found = sections.split(trace.events, owners)
    left_out = sections.parameter_gradients(trace.events, found)
    level = saved = 0
    peaks = {False: 0, True: 0}
    is_backward = False
    for event in trace.events:
        if isinstance(event, Mark):
            if event.kind == "backward":
                is_backward, saved = True, level
                peaks[True] = level
        elif event.storage not in left_out:
            size = round_up(trace.sizes[event.storage], _BLOCK)
            level += size if isinstance(event, Made) else -size
            peaks[is_backward] = max(peaks[is_backward], level)
    return Observed(
        saved=saved,
        forward_peak=peaks[False],
        backward_peak=peaks[True],
        flops=sum(count for _, count in trace.flops),
    )
