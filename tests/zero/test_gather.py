"""Gathered parameters against the plain replay, and torch_autocast's 16-bit gathers by hand."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from support.plain_gather import Trace as PlainTrace
from support.plain_gather import gathered_bytes

from zero_sizer.zero.forms import Padding, highest
from zero_sizer.zero.replay import gathered, secondaries_made
from zero_sizer.zero.reuse import Visit
from zero_sizer.zero.secondary import NONE, Secondary
from zero_sizer.zero.trace import Gathering, Limits, Trace

EVERYTHING = Limits(prefetch_bucket_size=0, max_live_parameters=10**9, max_reuse_distance=0)


def levels(trace, limits, ranks):
    """Bytes at each visit, while it is made and after it."""
    padding = Padding(ranks)
    return tuple(
        (max(highest(during | after, padding), 0), highest(after, padding))
        for during, after in gathered(trace, limits)
    )


@st.composite
def traces(draw):
    """A few modules, run forward and backward, with weights that travel in 16 bits."""
    numels = tuple(draw(st.lists(st.integers(1, 40), min_size=2, max_size=8)))
    itemsizes = tuple(draw(st.sampled_from((2, 4, 4))) for _ in numels)
    gather_itemsizes = tuple(draw(st.sampled_from((2, size))) for size in itemsizes)
    persistent = tuple(draw(st.sampled_from((False, False, False, True))) for _ in numels)
    modules, first = [], 0
    while first < len(numels):
        last = first + draw(st.integers(1, 3))
        modules.append(tuple(range(first, min(last, len(numels)))))
        first = last
    again = draw(st.booleans())  # a forward, and with checkpointing another before backward
    order = [(module, False) for module in modules] + [(m, True) for m in modules if again]
    order += [(module, False) for module in modules[::-1]]
    saves = () if again else draw(st.sampled_from(((), tuple(range(0, len(numels), 2)))))
    visits = tuple(
        Visit(module, ends=True, recomputes=runs, saves=saves if number < len(modules) else ())
        for number, (module, runs) in enumerate(order)
    )
    ranks = draw(st.sampled_from((1, 2, 3, 8)))
    gather_itemsizes = gather_itemsizes if ranks > 1 else itemsizes
    return (numels, itemsizes, gather_itemsizes, persistent, visits), ranks, draw(st.booleans())


@given(
    drawn=traces(),
    prefetched=st.sampled_from((0, 20, 100)),
    distance=st.sampled_from((0, 30, 10**9)),
    step=st.sampled_from((1, 2, 100)),
)
@settings(max_examples=300)
def test_gathers_equal_the_plain_replay(drawn, prefetched, distance, step):
    tensors, ranks, is_parked = drawn
    limits = Limits(
        prefetch_bucket_size=prefetched, max_live_parameters=10**9, max_reuse_distance=distance
    )
    how = {"is_parked": is_parked, "recomputed": frozenset(range(0, len(tensors[0]), step))}
    trace = Trace(*tensors, one_by_one=ranks == 1, **how)
    plain = PlainTrace(*tensors, ranks=ranks, **how)
    assert levels(trace, limits, ranks) == gathered_bytes(plain, limits)


def by_hand(numels, gather_itemsizes, *, is_parked=False):
    """The level while one module's fp32 weights are gathered by two ranks, and after it."""
    visit = Visit(tuple(range(len(numels))), ends=True)
    persistent = (False,) * len(numels)
    fp32 = (4,) * len(numels)
    trace = Trace(
        numels, fp32, gather_itemsizes, persistent, (visit,), one_by_one=False, is_parked=is_parked
    )
    return levels(trace, EVERYTHING, 2)[0]


def test_one_weight_is_cast_out_of_its_buffer():
    """partition_parameters.py:1386-1396 and 721-724."""
    n = 1001
    padded = 1002
    assert by_hand((n,), (4,)) == (padded * 4, padded * 4)
    assert by_hand((n,), (2,)) == (padded * 2 + n * 4, n * 4)
    assert by_hand((n,), (2,), is_parked=True) == (padded * 2 + n * 4, n * 4)


def test_weights_gathered_together_are_cast_one_by_one():
    """partition_parameters.py:1337-1361 and 794-795: buffers, what was copied, and its cast."""
    small, large = 100, 1000
    buffers = (small + large) * 2
    casts = (small + large) * 4
    assert by_hand((small, large), (2, 2)) == (buffers + casts + large * 2, casts)
    first = large * (4 + 2)  # the second's cast is still to come
    assert by_hand((large, small), (2, 2)) == (buffers + max(first, casts + small * 2), casts)
    mixed = large * 2 + small * 4  # a bias that stays in fp32 has a buffer of its own
    assert by_hand((small, large), (4, 2)) == (mixed + max(casts, first), casts)


def test_partitions_from_the_host_are_cast_one_by_one():
    """The large one lies in both dtypes while its cast is made, beside the casts before it."""
    numels = (2, 10, 1000, 10)
    visits = (Visit((0,), ends=True), Visit((1, 2, 3), ends=True))
    how = {"one_by_one": False, "is_parked": True}
    trace = Trace(numels, (4,) * 4, (4, 2, 2, 2), (False,) * 4, visits, **how)
    limits = Limits(prefetch_bucket_size=10**6, max_live_parameters=10**9, max_reuse_distance=0)
    prefetching, after = levels(trace, limits, ranks=2)[0]
    buffers = 2 * 4 + (10 + 1000 + 10) * 2
    assert (prefetching, after) == (buffers + 5 * 2 + 500 * (2 + 4), buffers)


def test_what_recomputation_saved_stays_until_its_backward_is_over():
    """torch/utils/checkpoint.py:1095: saved tensors are detached, and share what was gathered."""
    first, second = Visit((0,), ends=True), Visit((1,), ends=True)
    again = (first._replace(recomputes=True), second._replace(recomputes=True))
    visits = (first, second, *again, second, first)
    tensors = ((100, 1000), (2, 2), (2, 2), (False, False))
    trace = Trace(*tensors, visits, one_by_one=False, is_parked=False, recomputed=frozenset((0, 1)))
    after = [level for _, level in levels(trace, EVERYTHING, ranks=2)]
    assert after == [200, 2000, 200, 2200, 4200, 400]


def test_what_is_frozen_stays_from_recomputation_to_the_end_of_who_asked_for_it():
    """partitioned_param_coordinator.py:37-41,393,503: it is released with the open module."""
    first, second = Visit((0,), ends=True), Visit((1,), ends=True)
    again = (first._replace(recomputes=True), second._replace(recomputes=True))
    asking = Visit((2,)), Visit((2,), begins=False, ends=True)
    visits = (first, second, asking[0], *again, asking[1], second, first)
    tensors = ((100, 1000, 10), (2,) * 3, (2,) * 3, (False,) * 3)
    lent = frozenset((0, 1))
    trace = Trace(*tensors, visits, one_by_one=False, is_parked=False, lent=lent)
    limits = Limits(prefetch_bucket_size=0, max_live_parameters=10**9, max_reuse_distance=0)
    after = [level for _, level in levels(trace, limits, ranks=2)]
    assert after == [200, 2000, 20, 220, 2220, 0, 2000, 200]


def test_what_a_linear_layer_saved_stays_from_forward_to_its_backward():
    """Its last visit of forward saves a view: of a tied embedding, that of the head."""
    first, second = Visit((0,), ends=True), Visit((1,), ends=True)
    visits = (first, second, first, first, second, first)  # embedding, layer, head and back
    gathering = Gathering(
        EVERYTHING,
        ((100, 1000), (2, 2), (2, 2)),
        (False, False),
        (False, False),
        (frozenset(), frozenset(), frozenset()),
        NONE,
        frozenset((0, 1)),
    )
    trace = gathering.trace(visits, 3)
    assert [visit.saves for visit in trace.visits] == [(), (1,), (0,), (), (), ()]
    after = [level for _, level in levels(trace, EVERYTHING, ranks=2)]
    assert after == [200, 2000, 2200, 2400, 4000, 200]


def test_a_release_leaves_a_secondary_partition():
    """partition_parameters.py:1900-1929: cut beside what is released, once, where none is left."""
    visits = tuple(Visit((i,), ends=True) for i in (0, 1, 2, 2, 1, 0))
    numels = (101, 1000, 10)  # the first is padded to 104, the others are not
    how = {"one_by_one": False, "is_parked": False}
    secondary = Secondary(2, (2, 2, 0), frozenset((2,)))
    trace = Trace(numels, (2,) * 3, (2,) * 3, (False,) * 3, visits, secondary=secondary, **how)
    padding = Padding(4, 2)
    found = [
        (highest(during, padding), highest(after, padding))
        for during, after in gathered(trace, EVERYTHING)
    ]
    small, large = 52 * 2, 500 * 2  # over two ranks
    assert found[:3] == [
        (208, 208),
        (small + 2000, small + 2000),
        (small + 2000 + large, small + large + 24),
    ]
    assert secondaries_made(trace, EVERYTHING, 2) == ((0,), (0, 1))
    assert secondaries_made(trace, EVERYTHING, 3) == ((0, 1), (0, 1))

    since_init = secondary._replace(made=frozenset((0, 1, 2)), counted=frozenset((0, 1)))
    trace = replace(trace, secondary=since_init)
    after = [highest(level, padding) for _, level in gathered(trace, EVERYTHING)]
    assert after[:3] == [small + large + gathered_now for gathered_now in (208, 2000, 24)]
    assert secondaries_made(trace, EVERYTHING, 3) == ((), ())
