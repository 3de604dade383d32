"""Launcher lines, as far as they say how a script would run."""

from collections.abc import Mapping
from dataclasses import field, replace

from zero_sizer.parallel import ParallelDims
from zero_sizer.util.records import dataclass


@dataclass(frozen=True, kw_only=True)
class Launch:
    """A script and the ranks that it would be started on.

    Attributes:
        command: the script's path (or a module's name) and its arguments.
        module: ``command`` starts with a module, as after ``python -m``.
        launcher: who would start it; empty for Python alone.
        nodes: nodes; None where the line does not say.
        gpus_per_node: ranks of a node; None where the line does not say.
        environment: variables that the line or its launcher sets.
        slurm: ``srun`` stands in front.
        mpi: ``mpirun`` stands in front.
        options: the launcher's own, by name, where they say more than the other fields.
    """

    command: tuple[str, ...]
    module: bool = False
    launcher: str = ""
    nodes: int | None = None
    gpus_per_node: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    slurm: bool = False
    mpi: bool = False
    options: Mapping[str, str] = field(default_factory=dict)

    def variables(self, *, rank: int, nodes: int, gpus_per_node: int) -> dict[str, str]:
        """The environment of one rank, as far as the line decides it."""
        found = dict(self.environment)
        ranks = ParallelDims(world_size=nodes * gpus_per_node, ranks_per_node=gpus_per_node)
        if self.mpi:
            world, local = (str(ranks.world_size), str(ranks.local_rank(rank)))
            found.update(
                OMPI_COMM_WORLD_RANK=str(rank),
                OMPI_COMM_WORLD_SIZE=world,
                OMPI_COMM_WORLD_LOCAL_RANK=local,
                OMPI_COMM_WORLD_LOCAL_SIZE=str(gpus_per_node),
                OMPI_COMM_WORLD_NODE_RANK=local,
                PMI_RANK=str(rank),
                PMI_SIZE=world,
                MPI_LOCALRANKID=local,
            )
        if self.slurm:
            found.update(
                SLURM_PROCID=str(rank),
                SLURM_LOCALID=str(ranks.local_rank(rank)),
                SLURM_NODEID=str(ranks.node_of(rank)),
                SLURM_NTASKS=str(ranks.world_size),
                SLURM_NNODES=str(nodes),
                SLURM_JOB_NUM_NODES=str(nodes),
                SLURM_NTASKS_PER_NODE=str(gpus_per_node),
            )
        return found

    def within(self, outer: "Launch") -> "Launch":
        """Joins this line with what stands in front of it: the inner launcher counts the ranks."""
        return replace(
            self,
            nodes=self.nodes if self.nodes is not None else outer.nodes,
            gpus_per_node=(
                self.gpus_per_node if self.gpus_per_node is not None else outer.gpus_per_node
            ),
            environment={**outer.environment, **self.environment},
            slurm=self.slurm or outer.slurm,
            mpi=self.mpi or outer.mpi,
            launcher=self.launcher or outer.launcher,
        )
