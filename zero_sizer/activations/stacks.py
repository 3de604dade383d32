"""Which traced block stands for each block of a model."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from zero_sizer.activations.kinds import stand_ins
from zero_sizer.errors import UnsupportedError


def row_of(stack: Mapping[str, Any], traced: int) -> list[int]:
    """Index of the traced block for each block of the model.

    Args:
        stack: of a profile; where its blocks are told apart by kinds, with those of the model.
        traced: blocks in the trace.

    Raises:
        UnsupportedError: the model is too shallow, or has no whole number of patterns.
    """
    if "kinds" in stack:
        if stack["depth"] != len(stack["row"]):
            raise UnsupportedError(f"{stack['depth']} blocks in {stack['blocks']}: of which kinds?")
        return stand_ins(stack["kinds"], stack["row"])
    missing, period = _missing(stack, traced), stack["period"]
    start = stack["lead"] + period
    pattern = list(range(start, min(start + period, traced)))
    return [*range(min(start, traced)), *(pattern * (missing + 1)), *range(start + period, traced)]


def _missing(stack: Mapping[str, Any], traced: int) -> int:
    """Patterns that the stack has and the trace lacks; -1 where it is the other way round."""
    missing, rest = divmod(stack["depth"] - traced, stack["period"])
    if not rest and missing >= -1 and traced > stack["lead"] + stack["period"]:
        return int(missing)
    if missing == 0 and not rest:
        return 0
    raise UnsupportedError(
        f"{stack['depth']} blocks in {stack['blocks']}: too few, or no whole pattern, for a profile"
    )


def late_of(
    stack: Mapping[str, Any], row: Sequence[int], late: int | Sequence[int], traced: int
) -> Iterator[tuple[int, int]]:
    """(polynomial, how often) of what untraced blocks leave to the end of the forward.

    Args:
        stack: of a profile.
        row: of the model, as ``row_of`` tells it.
        late: polynomial of one pattern, or of each traced block.
        traced: blocks in the trace.
    """
    if isinstance(late, int):
        yield late, (len(row) - traced) // stack["period"]
        return
    for index, polynomial in enumerate(late):
        yield polynomial, row.count(index) - 1
