"""hpZ's secondary partitions: a second cut of every parameter, over a few neighbouring ranks.

One is made where a parameter that has none is partitioned, at init or when it is released, and is
gathered from until the step drops it (deepspeed 0.19.8 runtime/zero/partition_parameters.py:1900,
stage3.py:2846); those of frozen parameters stay.
"""

from collections.abc import Iterable
from typing import NamedTuple

from zero_sizer.zero.partition import flat_partition, padded


class Secondary(NamedTuple):
    """Secondary partitions during a micro step.

    Attributes:
        ranks: ranks of a group; 0 without hpZ.
        itemsizes: bytes on the GPU per element of what each parameter's release makes; 0: nothing.
        made: parameters that have one when the micro step begins.
        counted: those of them whose partition is counted with what is gathered; others' are
            entries of the ledger.
    """

    ranks: int
    itemsizes: tuple[int, ...] = ()
    made: frozenset[int] = frozenset()
    counted: frozenset[int] = frozenset()


NONE = Secondary(0)


def numels(tensors: Iterable[int], ranks: int, group: int) -> tuple[int, ...]:
    """Elements of each tensor's secondary partition: what is padded for all ranks, cut by few."""
    found = tuple(tensors)  # few differ
    parts = {numel: flat_partition(padded(numel, ranks), group) for numel in set(found)}
    return tuple([parts[numel] for numel in found])
