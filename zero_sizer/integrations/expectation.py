"""Bytes that a run is expected to hold, and the words where it holds something else."""

from collections.abc import Iterator, Mapping

from zero_sizer.answer import Answer
from zero_sizer.dryrun.owners import GPU
from zero_sizer.hardware.device import Device
from zero_sizer.ledger import capacity
from zero_sizer.units import format_gib
from zero_sizer.util.records import dataclass

MODEL_ERROR = 0.026
"""The largest error of a whole run against the simulated engine (docs/limits.md)."""


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """Bytes of the GPU that PyTorch will hand out, and what all of it takes.

    Attributes:
        low, expected, high: the most that is allocated at once; high is None where nobody knows.
        used: the most that the GPU holds, PyTorch's reserve, CUDA and NCCL included; None where
            nobody knows.
        phase: in which the peak is expected.
    """

    low: int
    expected: int
    high: int | None
    used: int | None
    phase: str

    def remarks(self, figures: Mapping[str, int], phase: str, *, is_whole: bool) -> Iterator[str]:
        """Where measured figures lie outside, one sentence each.

        Args:
            figures: of the GPU, the most so far.
            phase: in which that was.
            is_whole: all phases of a step have been seen, so that less than expected means it.
        """
        allocated, used = figures.get("max_allocated", 0), figures.get("used", 0)
        if self.high is not None and allocated > self.high:
            yield (
                f"above the prediction: {format_gib(allocated)} allocated in {phase}, at most "
                f"{format_gib(self.high)} expected (in {self.phase})"
            )
        elif self.used is not None and used > self.used:
            reserved = figures.get("max_reserved", 0)
            yield (
                f"fuller than predicted: the GPU holds {format_gib(used)}, at most "
                f"{format_gib(self.used)} expected; PyTorch reserves {format_gib(reserved)} for "
                f"{format_gib(allocated)}, and the rest is CUDA's, NCCL's or another process's; "
                "PYTORCH_ALLOC_CONF=expandable_segments:True reserves less"
            )
        elif is_whole and allocated and allocated < self.low:
            yield (
                f"below the prediction: {format_gib(allocated)} allocated at most, "
                f"{format_gib(self.low)} expected at least: shorter batches than was said?"
            )


def expectation_of(answer: Answer) -> Expectation:
    """Expectation of each GPU by the answer, widened by the model's own error."""
    found = answer.devices[Device.GPU]
    peak, need = found.peak.num_bytes, found.need
    plain = capacity.need(peak, found.capacity, need.room)
    low = max(need.low - found.capacity.outside.low, 0)
    high = None if need.high is None else peak + max(need.high - plain.high, 0)
    return Expectation(
        low=int(low * (1 - MODEL_ERROR)),
        expected=peak,
        high=None if high is None else int(high * (1 + MODEL_ERROR)),
        used=need.high,
        phase=found.peak.moment.phase.value,
    )


def prediction_of(answer: Answer) -> dict[str, dict[str, int]]:
    """The prediction as a recording keeps it: bytes of each device with everything else on it."""
    found = {}
    for device, of_device in answer.devices.items():
        if not of_device.is_used:
            continue
        need = of_device.need
        figures = {"low": need.low, "expected": need.expected}
        found[device.value] = figures if need.high is None else {**figures, "high": need.high}
    return found


def gpu_figures(figures: Mapping[str, Mapping[str, int]]) -> Mapping[str, int]:
    """The figures of the GPU; empty where there is none."""
    return figures.get(GPU, {})
