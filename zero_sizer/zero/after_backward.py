"""Buckets of gradients that are reduced when backward is over (stage 0, ``BF16_Optimizer``)."""

from collections.abc import Sequence

_STAGE0_BUCKET = 500_000_000  # elements: MEMORY_OPT_ALLREDUCE_SIZE, runtime/engine.py:3073


def buckets(numels: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Per stage-0 bucket: elements flattened, elements in all; closed once past the limit."""
    found: dict[tuple[int, int], None] = {}
    elements = count = 0
    for position, numel in enumerate(numels):
        elements += numel
        count += 1
        if elements > _STAGE0_BUCKET or position == len(numels) - 1:
            found[elements if count > 1 else 0, elements] = None
            elements = count = 0
    return tuple(found)
