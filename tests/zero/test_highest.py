"""What several ranks hold at most, by bounds and asked for place by place, against every rank."""

import random

import pytest

from zero_sizer.util.identity import Identity
from zero_sizer.zero.copies import ceilings, most_costs
from zero_sizer.zero.gradient_flow import Completion, Rules, Scheme, Tensors, flow
from zero_sizer.zero.highest import Highest
from zero_sizer.zero.reduction import Reduction
from zero_sizer.zero.share import Own, Share


def drawn(seed):
    """A backward over a few ranks at stage 1 or 2, with what each of them has of its own."""
    draw = random.Random(seed)
    numels = tuple(draw.choice((1, 3, 8, 40, 100, draw.randint(1, 200))) for _ in range(24))
    count = draw.choice((1, 2))
    groups = tuple(tuple(range(24))[start::count] for start in range(count))
    tensors = Tensors(groups, numels)
    is_first = draw.random() < 0.5
    scheme, bucket_itemsize = draw.choice((Scheme.HOOKED, Scheme.DEFERRED)), draw.choice((0, 2, 2))
    rules = Rules(
        scheme=scheme,
        itemsize=2,
        made_itemsize=2,
        bucket_itemsize=bucket_itemsize,
        bucket_numel=draw.choice((30, 90, 500)),
        num_buckets=draw.choice((1, 2)),
        keeps_large=is_first,
        adds_in_place=False,
        clones_large=draw.random() < 0.3,
        frees_late=not (is_first or bucket_itemsize) and draw.random() < 0.5,
    )
    is_compact = not is_first and draw.random() < 0.4
    share = Share(
        cast_itemsizes=(draw.choice((0, 4)), 0),
        copies=draw.random() < 0.7,
        offloads=not is_compact and draw.random() < 0.3,
        compact=(is_compact, draw.random() < 0.5 and is_compact)[:count],
        compact_itemsize=4 * is_compact,
        keeps_own=(is_compact or not bucket_itemsize, not bucket_itemsize)[:count],
        ranks=draw.choice((2, 5, 16)),
    )
    order = tuple(Completion(i, (i,), (i,)) for i in reversed(range(24)))
    found = flow(tensors, order, rules)
    owns = [
        Own(rank, draw.choice((0, draw.randint(0, 400))), draw.choice((0, 50)))
        for rank in range(share.ranks)
    ]
    reductions = [
        Reduction(found, tensors, rules, Share(**{**vars(share), "own": own})) for own in owns
    ]
    return found, reductions, owns, (tensors, rules, share)


@pytest.mark.parametrize("seed", range(60))
def test_every_place_is_that_of_the_highest_rank(seed):
    found, reductions, owns, _ = drawn(seed)
    highest = Highest(found, reductions[0], owns[1:])
    for position in range(len(found.hook)):
        for total, held in (
            (highest.before_total, "before"),
            (highest.hook_total, "hook"),
            (highest.after_total, "after"),
        ):
            each = [getattr(of, held)(position).total for of in reductions]
            assert total(position) >= max(each), (held, position)
            # a hook's reductions are taken for the highest of those that own nothing of it
            assert held == "hook" or total(position) == max(each), (held, position)
    assert all(of.holder.most >= of.holder.at(t) for of in reductions for t in range(-1, 60))


@pytest.mark.parametrize("seed", range(60))
def test_bounds_leave_out_no_higher_end(seed):
    found, reductions, owns, how = drawn(seed)
    highest = Highest(found, reductions[0], owns[1:])
    costs = most_costs(found, *how)
    assert highest.epilogue_total(ceilings(Identity(found), costs).after) == (
        highest.epilogue.total
    )
