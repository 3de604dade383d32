"""Pinned host memory that nothing uses any more and PyTorch does not give back.

Stage 3 pins each partition as it is made (runtime/zero/partition_parameters.py:1842) and then moves
all of them into one flat buffer (runtime/zero/stage3.py:975-1010). PyTorch's host allocator keeps
the blocks they were in (ATen/core/CachingHostAllocator.h), for requests of the same power of two.
"""

from collections import Counter
from collections.abc import Iterator

from zero_sizer.findings import Direction, Finding, Severity
from zero_sizer.hardware.device import Device
from zero_sizer.ledger.entries.building import copies_numel
from zero_sizer.ledger.entries.conditions import under_init
from zero_sizer.plan import sizes
from zero_sizer.plan.plan import Plan
from zero_sizer.units import format_gib, next_power_of_two, num_bytes
from zero_sizer.zero.partition import partitions_of
from zero_sizer.zero.wrapper import Wrapper

_KEY = "zero_optimization.offload_param.pin_memory"


def kept_bytes(plan: Plan) -> int:
    """Bytes of one process."""
    pins = plan.param_device is Device.HOST and plan.param_pinned
    if plan.wrapper is not Wrapper.ZERO3 or not pins:
        return 0
    dtype = sizes.trained_dtype(plan)
    numels = partitions_of(sizes.trainable(plan), plan.dp_world_size)
    left = [num_bytes(numel, dtype) for numel in numels]
    if under_init(plan):
        left += [num_bytes(numel, plan.model_dtype) for numel in copies_numel(plan)]
    kept = Counter(map(next_power_of_two, left))
    for block in map(next_power_of_two, _requested_later(plan)):
        if kept[block]:  # taken from the blocks that are free
            kept[block] -= 1
    return sum(block * count for block, count in kept.items())


def kept_on_host(plan: Plan) -> int:
    """Bytes of all processes of a node."""
    return kept_bytes(plan) * plan.ranks_per_node


def _requested_later(plan: Plan) -> Iterator[int]:
    """Pinned buffers that come when the partitions have moved, which the ledger counts."""
    if not (plan.offloads_optimizer and plan.optimizer_pinned):
        return
    yield num_bytes(sizes.partition_numel(plan), plan.grad_accum_dtype)
    for numel in sizes.partitions(plan):
        yield num_bytes(numel, plan.master_dtype)


def kept_pinned(plan: Plan) -> Iterator[Finding]:
    """A finding where a node holds such memory beside what the ledger counts."""
    kept = kept_on_host(plan)
    if kept:
        yield Finding(
            code="pinned-kept",
            severity=Severity.NOTE,
            key=_KEY,
            message="PyTorch keeps the pinned blocks of the partitions that moved to one buffer: "
            f"{format_gib(kept)} of each host, which no phase counts",
            remedy="pin_memory false pins that buffer alone",
            direction=Direction.COST,
            device=Device.HOST.value,
            num_bytes=kept,
        )
