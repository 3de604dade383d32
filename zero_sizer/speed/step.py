"""Step-time formulas: what they may read, and the terms' common arithmetic."""

from collections.abc import Callable
from dataclasses import field
from enum import Enum
from math import inf

from zero_sizer.hardware.device import Device
from zero_sizer.plan import sizes
from zero_sizer.plan.parallel import ranks_of
from zero_sizer.plan.plan import Plan
from zero_sizer.speed.rates import Rates
from zero_sizer.speed.work import Work
from zero_sizer.units import ceil_div
from zero_sizer.util.records import dataclass


class Kind(Enum):
    """Resource that a term waits for."""

    COMPUTE = "compute"
    COMMUNICATION = "communication"
    TRANSFER = "transfer"  # PCIe and NVMe
    UPDATE = "update"


class Per(Enum):
    """How often a term is paid."""

    MICRO_STEP = "micro step"
    STEP = "step"


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One training step of one job in one case.

    Attributes:
        plan: the job.
        rates: what the hardware reaches.
        work: what the model computes.
        nodes: nodes that the ranks stand on.
        recompute: extra forward passes through the blocks.
    """

    plan: Plan
    rates: Rates
    work: Work
    nodes: int
    recompute: float

    @property
    def tokens(self) -> int:
        """Tokens of one micro step on one GPU."""
        return self.plan.micro_batch * self.plan.seq_len

    def gather_seconds(self, num_bytes: float, calls: float) -> float:
        """All-gather (or reduce-scatter) of ``num_bytes`` over all ranks, in ``calls`` pieces.

        Every rank receives (N-1)/N of it over its link to the node's GPUs, and every node the part
        that the other nodes hold over its network cards; the slower of the two pipelines decides
        (a ring: Patarasuk and Yuan, 2009; NCCL's across the cards of a node).
        """
        ranks, plan = self.plan.dp_world_size, self.plan
        if ranks == 1:
            return 0.0
        inside = num_bytes * (ranks - 1) / ranks / self.rates.node_link
        between = num_bytes * (self.nodes - 1) / self.nodes / self.rates.network
        slower = max(inside if plan.ranks_per_node > 1 else 0.0, between)
        return self._ring_seconds(num_bytes, calls, slower, ranks, self.nodes)

    def node_gather_seconds(self, num_bytes: float, calls: float) -> float:
        """Seconds of an all-gather among the ranks of one node."""
        ranks = ranks_of(self.plan).ranks_on_a_node
        inside = num_bytes * (ranks - 1) / ranks / self.rates.node_link
        return self._ring_seconds(num_bytes, calls, inside, ranks, 1)

    def _ring_seconds(
        self, num_bytes: float, calls: float, transfer: float, ranks: int, nodes: int
    ) -> float:
        """Transfer, and a hop for every other rank of the ring in every call.

        ``transfer``: seconds at the full rate of the links. NCCL takes the protocol that its own
        model of both finds fastest for a message (src/graph/tuning.cc).
        """
        inside, across, least = ranks - nodes, nodes - 1, inf
        for way in self.rates.protocols:
            seconds = calls * (way.base + inside * way.hop + across * way.network_hop)
            seconds += max(transfer / way.share, num_bytes / way.most)
            if seconds < least:
                least = seconds
        return least

    def reduce_seconds(self, num_bytes: float, calls: float) -> float:
        """All-reduce: a reduce-scatter and an all-gather."""
        return 2.0 * self.gather_seconds(num_bytes, calls)

    @property
    def buckets(self) -> int:
        """Reductions of one pass over the gradients."""
        return ceil_div(sizes.num_trainable(self.plan), max(self.plan.reduce_bucket_size, 1))

    @property
    def offloaded(self) -> float:
        """Elements of this rank's partition whose optimizer works on the host."""
        plan = self.plan
        if not plan.offloads_optimizer:
            return 0.0
        if plan.stage < 3 or plan.optimizer_ratio == 1:
            return float(sizes.partition_numel(plan))
        numels = sizes.partitions(plan)  # whole sub-groups stay on the GPU (stage3.py:1099-1108)
        return float(sum(numels[sizes.num_by_ratio(plan) :]))

    @property
    def host_share(self) -> float:
        """Bytes/s of host memory that one rank gets while all ranks of the node update."""
        return self.rates.host_memory / self.plan.ranks_per_node

    @property
    def nvme_share(self) -> float:
        """Bytes/s of the node's drives that one rank gets."""
        return self.rates.nvme / self.plan.ranks_per_node


def _never(step: Step) -> bool:
    return False


def _always(step: Step) -> bool:
    return True


@dataclass(frozen=True, kw_only=True)
class Term:
    """One declared part of the step time.

    Attributes:
        name: stable name.
        about: one clause for the reader.
        seconds: time on one GPU if nothing overlapped.
        per: how often it is paid.
        when: whether this job has it.
        overlaps: whether it runs beside compute in this job.
        formula: the formula in words and symbols.
        source: what it follows.
    """

    name: str
    kind: Kind
    about: str
    seconds: Callable[[Step], float]
    per: Per
    when: Callable[[Step], bool] = field(default=_always)
    overlaps: Callable[[Step], bool] = field(default=_never)
    formula: str
    source: str


def offloads_params(step: Step) -> bool:
    """True if weights wait outside the GPU."""
    return step.plan.param_device is not Device.GPU
