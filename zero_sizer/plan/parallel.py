"""Questions of formulas about the ranks of a plan."""

from zero_sizer.parallel import ParallelDims
from zero_sizer.plan.plan import Plan


def ranks_of(plan: Plan) -> ParallelDims:
    """The ranks and their nodes."""
    return ParallelDims(world_size=plan.dp_world_size, ranks_per_node=plan.ranks_per_node)


def hpz_ranks(plan: Plan) -> int:
    """Ranks that secondary partitions (hpZ) are cut for; 0 where there are none."""
    return ParallelDims(world_size=plan.dp_world_size, hpz=plan.hpz_partition_size).hpz_ranks
