"""How ranks form nodes and groups, against counting them one by one."""

from hypothesis import given
from hypothesis import strategies as st

from zero_sizer.findings import Severity
from zero_sizer.parallel import ParallelDims, laid_out

COUNTS = st.integers(1, 200)
SIZES = st.one_of(st.integers(-2, 64), st.floats(0.5, 9.0))


@given(COUNTS, COUNTS)
def test_every_rank_stands_once_where_its_node_says(world_size, ranks_per_node):
    ranks = ParallelDims(world_size=world_size, ranks_per_node=ranks_per_node)
    nodes = list(ranks.by_node())
    assert [rank for node in nodes for rank in node] == list(range(world_size))
    assert len(nodes) == ranks.nodes
    assert max(map(len, nodes)) == ranks.ranks_on_a_node
    assert ranks.fills_nodes == ({len(node) for node in nodes} == {ranks_per_node})
    for number, node in enumerate(nodes):
        assert [ranks.node_of(rank) for rank in node] == [number] * len(node)
        assert [ranks.local_rank(rank) for rank in node] == list(range(len(node)))


@given(COUNTS, COUNTS)
def test_ranks_that_are_laid_out_fill_whole_nodes(world_size, ranks_per_node):
    ranks = laid_out(world_size, ranks_per_node)
    assert ranks.fills_nodes
    assert 0 <= world_size - ranks.world_size < ranks.ranks_per_node <= ranks_per_node


@given(COUNTS, COUNTS, st.integers(-2, 64), SIZES, SIZES, SIZES, st.none() | SIZES)
def test_any_sizes_are_answered_and_found_wrong_rather_than_thrown(
    world_size, ranks_per_node, hpz, tp, sp, ep, dp
):
    ranks = ParallelDims(
        world_size=world_size, ranks_per_node=ranks_per_node, hpz=hpz, tp=tp, sp=sp, ep=ep, dp=dp
    )
    errors = {p.code for p in ranks.problems() if p.severity is Severity.ERROR}
    groups = [(tp, "tensor-parallel-world-size"), (ep, "expert-parallel-size")]
    for size, code in [*groups, (min(hpz, world_size), "hpz-world-size")]:
        whole = [range(0, world_size, int(size))] if size > 1 and size == int(size) else []
        uneven = size > 1 and not any(world_size - steps[-1] == size for steps in whole)
        assert (code in errors) == uneven, (size, code)
    assert ("sequence-parallel-world-size" in errors) == (dp is not None and dp * sp != world_size)


def test_sequence_parallel_ranks_share_their_samples():
    def of(**sizes):
        return ParallelDims(world_size=8, **sizes).batch_ranks

    assert (of(), of(sp=2), of(sp=2, dp=3), of(sp=3)) == (8, 4, 3, 8 / 3)
