"""The ledger: declared entries, evaluated on a plan into allocations.

One ``Entry`` is one thing that allocates memory. Elements become bytes here and nowhere else.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import field
from enum import Enum
from typing import Any, cast

from zero_sizer.hardware.device import Device
from zero_sizer.ledger.moments import Moment, Phase
from zero_sizer.plan.plan import Plan
from zero_sizer.plan.reads import Reads
from zero_sizer.units import GPU_BLOCK, DType, next_power_of_two, num_bytes, round_up
from zero_sizer.util.records import dataclass

Numel = int | tuple[int, ...]
"""Elements of one buffer, or of several buffers that are requested one by one."""


class Category(Enum):
    """Kind of an allocation."""

    PARAMETERS = "parameters"
    MASTER_WEIGHTS = "master_weights"
    OPTIMIZER_STATES = "optimizer_states"
    GRADIENTS = "gradients"
    COMMUNICATION = "communication_buffers"
    OFFLOAD = "offload_buffers"
    TEMPORARY = "temporaries"
    ACTIVATIONS = "activations"
    MODEL_BUFFERS = "model_buffers"
    RUNTIME = "runtime"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One declared allocation; every callable takes the plan and reads nothing else.

    Attributes:
        name: DeepSpeed's own attribute name where it has one.
        numel: elements per rank; a tuple where the buffers are requested one by one.
        dtype: element type.
        live: the moments at which it exists.
        when: whether this job has it at all.
        device: where it lives.
        pinned: page-locked, so the host allocator rounds each request to a power of two.
        by_deepspeed: page-locked by DeepSpeed itself, which rounds nothing up
            (csrc/aio/py_lib/deepspeed_pin_tensor.cpp).
        in_blocks: small and many, so what the GPU's allocator rounds each up by is counted too.
        once_per_node: one rank of a node has it, not each.
        about: one clause for the reader.
        node_bytes: on host and NVMe, bytes of all ranks of the node that holds most, rounding
            included, where ranks differ.
        source: what it follows, relative to deepspeed/ at 0.19.8 unless another package is named.
    """

    name: str
    category: Category
    about: str
    numel: Callable[[Plan], Numel]
    dtype: Callable[[Plan], DType]
    live: frozenset[Moment] | Callable[[Plan], frozenset[Moment]]
    when: Callable[[Plan], bool] = field(default=lambda p: True)
    device: Callable[[Plan], Device] = field(default=lambda p: Device.GPU)
    pinned: Callable[[Plan], bool] = field(default=lambda p: False)
    by_deepspeed: bool = False
    in_blocks: bool = False
    node_bytes: Callable[[Plan], int] | None = None
    once_per_node: bool = False
    source: str


@dataclass(frozen=True, kw_only=True)
class Allocation:
    """An entry with its numbers filled in, per rank.

    Attributes:
        num_bytes: bytes of the tensors.
        rounding_bytes: what the allocator adds by rounding each request up, where it is counted.
        node_bytes: see ``Entry``; None: every rank of a node holds as much.
        once_per_node: one rank of a node has it, not each.
        keys: config keys that decided it.
    """

    name: str
    category: Category
    about: str
    device: Device
    pinned: bool
    num_bytes: int
    rounding_bytes: int
    node_bytes: int | None = None
    moments: frozenset[Moment]
    once_per_node: bool
    keys: tuple[str, ...]
    source: str

    def on_device(self, ranks_per_node: int) -> int:
        """Bytes on the device, rounding included: of one GPU, of a node's host or NVMe."""
        own = self.num_bytes + self.rounding_bytes
        if self.device is Device.GPU or self.once_per_node:
            return own
        return ranks_per_node * own if self.node_bytes is None else self.node_bytes

    @property
    def phases(self) -> tuple[Phase, ...]:
        """Phases with at least one moment at which this lives."""
        return tuple(phase for phase in Phase if any(m.phase is phase for m in self.moments))


def evaluate(entries: Iterable[Entry], plan: Plan, *, explain: bool = True) -> list[Allocation]:
    """Fill in every entry that this job has and that is not empty.

    With ``explain`` the keys that each formula read are noted; sweeps leave it out.
    """
    allocations = []
    memo: dict[Any, Any] = {}
    for entry in entries:
        reads = Reads(plan, memo) if explain else None
        view = plan if reads is None else cast(Plan, reads)
        allocation = _allocation(entry, view)
        if allocation is not None:
            keys = tuple(reads.keys) if reads is not None else ()
            allocations.append(Allocation(**allocation, keys=keys))
    return allocations


def footprint(
    entry: Entry, plan: Plan, ranks_per_node: int
) -> tuple[Device, int, frozenset[Moment]] | None:
    """Device, bytes on it (``Allocation.on_device``) and moments of an entry that this job has.

    What all ranks of a node hold is not asked of one rank first.
    """
    if not entry.when(plan):
        return None
    device, is_node = entry.device(plan), False
    if entry.node_bytes is not None and device is not Device.GPU and not entry.once_per_node:
        size, is_node = entry.node_bytes(plan), True
    else:
        numel, dtype = entry.numel(plan), entry.dtype(plan)
        size = num_bytes(sum(numel) if isinstance(numel, tuple) else numel, dtype)
        if size and (entry.in_blocks or entry.pinned(plan)):
            requests = Counter(numel if isinstance(numel, tuple) else (numel,))  # few differ
            pinned = entry.pinned(plan)
            for n, count in requests.items():
                size += count * _rounding((num_bytes(n, dtype),), entry, is_pinned=pinned)
    if not size:
        return None
    if not is_node and device is not Device.GPU and not entry.once_per_node:
        size *= ranks_per_node
    return device, size, entry.live(plan) if callable(entry.live) else entry.live


def _allocation(entry: Entry, plan: Plan) -> dict[str, Any] | None:
    if not entry.when(plan):
        return None
    numel = entry.numel(plan)
    requests = numel if isinstance(numel, tuple) else (numel,)
    dtype = entry.dtype(plan)
    sizes = [num_bytes(n, dtype) for n in requests]
    node_bytes = entry.node_bytes(plan) if entry.node_bytes else None
    if not any(sizes) and not node_bytes:
        return None
    pinned = entry.pinned(plan)
    return {
        "name": entry.name,
        "category": entry.category,
        "about": entry.about,
        "device": entry.device(plan),
        "pinned": pinned,
        "num_bytes": sum(sizes),
        "rounding_bytes": _rounding(sizes, entry, is_pinned=pinned),
        "node_bytes": node_bytes,
        "moments": entry.live(plan) if callable(entry.live) else entry.live,
        "once_per_node": entry.once_per_node,
        "source": entry.source,
    }


def _rounding(sizes: Iterable[int], entry: Entry, *, is_pinned: bool) -> int:
    if is_pinned and not entry.by_deepspeed:
        return sum(next_power_of_two(size) - size for size in sizes)
    return sum(round_up(size, GPU_BLOCK) - size for size in sizes) if entry.in_blocks else 0
