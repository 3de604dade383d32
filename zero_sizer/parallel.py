"""How the ranks of a job form nodes and groups: the only divisions of a number of ranks.

Elements are divided by ranks in ``zero.partition``, batches in ``config.batch``; ranks themselves
are divided here.
"""

from collections.abc import Iterator

from zero_sizer.findings import Finding, Severity
from zero_sizer.units import ceil_div
from zero_sizer.util.records import dataclass

TENSOR = "tensor_parallel.autotp_size"
SEQUENCE = "sequence_parallel_size"
DATA = "data_parallel_size"
EXPERT = "expert_parallel.autoep_size"
HPZ = "zero_optimization.zero_hpz_partition_size"


@dataclass(frozen=True, kw_only=True, slots=True)
class ParallelDims:
    """Ranks of a job and the sizes of the groups that they form, as stated.

    A size may be wrong: ``problems`` says so, and every answer stays a number. ZeRO's formulas know
    ``dp`` and ``hpz``; the other dimensions are refused or flagged elsewhere (``checks.parallel``).

    Attributes:
        world_size: ranks of the job, one for each GPU.
        ranks_per_node: ranks of a node, of the fullest where nodes differ.
        dp: ranks that hold different samples, as stated; None: what the others leave.
        tp: ranks that share each layer's tensors (AutoTP).
        sp: ranks that share each sequence (Ulysses).
        ep: ranks that share each layer's experts (AutoEP).
        pp: stages of a pipeline.
        hpz: ranks that hold a second copy of the weights between them; 1: no second copy.
    """

    world_size: int
    ranks_per_node: int = 1
    dp: float | None = None
    tp: float = 1
    sp: float = 1
    ep: float = 1
    pp: float = 1
    hpz: int = 1

    @property
    def nodes(self) -> int:
        """Nodes that the ranks stand on."""
        return ceil_div(self.world_size, max(self.ranks_per_node, 1))

    @property
    def ranks_on_a_node(self) -> int:
        """Ranks of the fullest node, where a job may fill less than one."""
        return min(self.ranks_per_node, self.world_size)

    @property
    def hpz_ranks(self) -> int:
        """Ranks of an hpZ group, clamped to the world (utils/groups.py:944); 0 without hpZ."""
        return min(self.hpz, self.world_size) if self.hpz > 1 else 0

    @property
    def batch_ranks(self) -> float:
        """Ranks that a train batch is divided over (config.py:470-480).

        Sequence parallel ranks share their samples; where they do not divide the world, DeepSpeed
        goes on with a fraction.
        """
        if self.dp is not None:
            return self.dp
        return self.world_size // self.sp if self.divides("sp") else self.world_size / self.sp

    def divides(self, dimension: str) -> bool:
        """True if all ranks fall into groups of this size."""
        size = self.hpz_ranks or 1 if dimension == "hpz" else getattr(self, dimension)
        return bool(self.world_size % size == 0 and size % 1 == 0)

    @property
    def fills_nodes(self) -> bool:
        """True if every node holds as many ranks."""
        return self.divides("ranks_per_node")

    def node_of(self, rank: int) -> int:
        """Number of the node that a rank stands on."""
        return rank // self.ranks_per_node

    def local_rank(self, rank: int) -> int:
        """Number of a rank on its node."""
        return rank % self.ranks_per_node

    def dealt_to(self, number: int) -> int:
        """Rank that gets item ``number`` where items are dealt out in turn."""
        return number % self.world_size

    def by_node(self) -> Iterator[range]:
        """Ranks of each node."""
        for first in range(0, self.world_size, self.ranks_per_node):
            yield range(first, min(first + self.ranks_per_node, self.world_size))

    def problems(self) -> Iterator[Finding]:
        """Findings about sizes that do not fit the ranks; their line is not known here."""
        yield from self._hpz_problems()
        if self.tp > 1 and not self.divides("tp"):  # utils/groups.py:202
            yield Finding(
                code="tensor-parallel-world-size",
                severity=Severity.ERROR,
                key=TENSOR,
                message=f"AssertionError or IndexError: {self.world_size} ranks do not divide "
                f"into groups of {self.tp:g}",
                remedy="use a divisor of the number of ranks",
            )
        if self.dp is not None and self.dp * self.sp != self.world_size:  # __init__.py:541
            yield Finding(
                code="sequence-parallel-world-size",
                severity=Severity.ERROR,
                key=SEQUENCE,
                message="RuntimeError: data_parallel_size x sequence_parallel_size is not the "
                f"{self.world_size} ranks",
                remedy="make the product the number of ranks",
            )
        if self.ep > 1 and not self.divides("ep"):  # module_inject/auto_ep_config.py:258
            yield Finding(
                code="expert-parallel-size",
                severity=Severity.ERROR,
                key=EXPERT,
                message=f"ValueError: {self.world_size} ranks do not divide into groups of "
                f"{self.ep:g}",
                remedy=f"take a divisor of {self.world_size}",
            )

    def _hpz_problems(self) -> Iterator[Finding]:
        """utils/groups.py:944."""
        if self.hpz <= 1:
            return
        if not self.divides("hpz"):
            yield Finding(
                code="hpz-world-size",
                severity=Severity.ERROR,
                key=HPZ,
                message=f"AssertionError: {self.world_size} ranks do not divide into groups of "
                f"{self.hpz:g}",
                remedy="use the number of GPUs in a node",
            )
        elif self.hpz != self.ranks_per_node and self.world_size > self.hpz:
            yield Finding(
                code="hpz-across-nodes",
                severity=Severity.NOTE,
                key=HPZ,
                message=f"groups of {self.hpz:g} are not the {self.ranks_per_node} GPUs of a node, "
                "within which the second copy is meant to be gathered",
                remedy=f"set it to {self.ranks_per_node}",
            )


def laid_out(world_size: int, ranks_per_node: int) -> ParallelDims:
    """Ranks that fill nodes one after the other: part of one, or every one whole."""
    each = min(world_size, ranks_per_node)
    return ParallelDims(world_size=world_size // each * each, ranks_per_node=each)


def ranks_of_each(ranks: int, nodes: int) -> int | None:
    """Ranks of each of ``nodes``; None where some are left over."""
    return None if ranks % nodes else ranks // nodes
