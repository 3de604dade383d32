"""Three numbers of bytes: the least, what is expected, the most."""

from math import isqrt
from typing import NamedTuple


class Interval(NamedTuple):
    """Bytes of something that is not known exactly."""

    low: int
    expected: int
    high: int

    def __add__(self, other: object) -> "Interval":
        if not isinstance(other, Interval):
            return NotImplemented
        return Interval(*(a + b for a, b in zip(self, other, strict=True)))


NOTHING = Interval(0, 0, 0)


def between(low: int, high: int) -> Interval:
    """A range whose middle is the geometric mean: its ends are factors apart, not amounts."""
    return Interval(low, isqrt(low * high), high)
