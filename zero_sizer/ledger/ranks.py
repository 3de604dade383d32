"""The rank that needs most: the whole ledger of every rank that can be it, the highest taken."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import chain
from typing import NamedTuple

from zero_sizer.hardware.device import Device
from zero_sizer.ledger import entries
from zero_sizer.ledger.entry import evaluate
from zero_sizer.ledger.moments import Moment, Phase
from zero_sizer.ledger.peak import peak_of, phase_peaks, totals
from zero_sizer.plan import sizes
from zero_sizer.plan.parallel import ranks_of
from zero_sizer.plan.plan import Plan
from zero_sizer.timeline.reduction_rules import buffers_gradients, cuts_bucket
from zero_sizer.zero import owners, partition
from zero_sizer.zero.wrapper import Wrapper


class OnRank(NamedTuple):
    """Bytes of one rank's GPU.

    Attributes:
        rank: whose.
        num_bytes: live on it.
    """

    rank: int
    num_bytes: int


class Highest(NamedTuple):
    """The rank that needs most, beside the others.

    Attributes:
        plan: on the rank whose GPU holds most over the run.
        higher: phases in which the GPU of another rank holds more -> the most.
    """

    plan: Plan
    higher: Mapping[Phase, OnRank]


def at_highest_rank(plan: Plan) -> Plan:
    """The plan on the rank whose GPU holds most; the lowest of equals."""
    return highest_of(plan).plan


def highest_of(plan: Plan) -> Highest:
    """The rank whose GPU holds most, the lowest of equals, and where others hold more."""
    ranks = candidates(plan)
    if len(ranks) == 1:
        return Highest(plan.at_rank(ranks[0]), {})
    plans = {rank: plan.at_rank(rank) for rank in ranks}
    moments = {rank: _moments(found) for rank, found in plans.items()}
    # of equal peaks the one with more over all moments
    top = max(ranks, key=lambda n: (peak_of(moments[n]).num_bytes, sum(moments[n].values())))
    phases = {rank: phase_peaks(found) for rank, found in moments.items()}
    higher = {}
    for phase, num_bytes in phases[top].items():
        rank = max(ranks, key=lambda n: phases[n][phase])
        if phases[rank][phase] > num_bytes:
            higher[phase] = OnRank(rank, phases[rank][phase])
    return Highest(plans[top], higher)


def _moments(plan: Plan) -> Mapping[Moment, int]:
    allocations = evaluate(entries.ENTRIES, plan, explain=False)
    return totals(allocations, plan.ranks_per_node)[Device.GPU]


def candidates(plan: Plan) -> tuple[int, ...]:
    """Ranks among which is one that needs most."""
    ranks = plan.dp_world_size
    if ranks == 1:
        return (0,)
    if plan.wrapper is Wrapper.ZERO12:
        return owners.candidates(_layout(plan), _keeping(plan))
    muon = [i for i, row in enumerate(plan.group_optimizers) if row.newton_schulz]
    if muon and plan.wrapper is Wrapper.BF16:
        weights = tuple(int(i in muon) for i in range(len(sizes.groups(plan))))
        return owners.candidates(
            _layout(plan), owners.Keeping(weights, plan.reduce_bucket_size, 0, pieces=True)
        )
    # the last fill up partitions, the first keep what they cut them from
    cutting = {0, _least_filled(plan)} if cuts_bucket(plan) else {0}
    if muon and plan.wrapper is Wrapper.ZERO3:
        return tuple(sorted(cutting.union(_orthogonalizing(plan, muon))))
    return tuple(sorted(cutting))  # every rank's partition is of one size, and none holds more


def _least_filled(plan: Plan) -> int:
    """The first rank whose partitions no more tensors fill than the last one's (stage 3)."""
    ranks = plan.dp_world_size
    numels = (plan.model.parameters[i].numel for group in plan.group_indices for i in group)
    filled = [partition.ranks_filled(numel, ranks) for numel in numels]
    return max([number for number in filled if number < ranks], default=0)


def step_candidates(plan: Plan) -> tuple[int, ...]:
    """Ranks among which is one that needs most in the step, if all else of a rank's is equal.

    Gradients that are too large for the bucket make ranks differ in backward alone.
    """
    if plan.wrapper is Wrapper.ZERO12 and plan.dp_world_size > 1:
        return owners.candidates(_layout(plan), replace(_keeping(plan), large=0))
    return candidates(plan)


def _layout(plan: Plan) -> owners.Layout:
    """Gradients are reduced from the last on; after backward (stage 1), from the first."""
    is_dealt = sizes.deals_tensors(plan) or len(sizes.groups(plan)) > 1
    return owners.Layout(
        groups=tuple([sizes.ordered(plan, group) for group in sizes.groups(plan)]),
        turns=sizes.flat_order(plan) if is_dealt else None,
        last_first=plan.stage == 2 or plan.overlap_comm,
        ranks=plan.dp_world_size,
        align_tensors=plan.align_tensors,
        itemsize=plan.itemsize,
    )


def _keeping(plan: Plan) -> owners.Keeping:
    """What ranks of ``DeepSpeedZeroOptimizer`` keep; Muon has two momentums and an update more."""
    keeps_whole = not plan.offloads_optimizer and not sizes.has_compact_gradients(plan)
    rows = plan.group_optimizers
    weights = tuple(keeps_whole * (1 + 3 * bool(row.newton_schulz)) for row in rows)
    is_compact = any(sizes.is_compact_group(plan))
    grows = not buffers_gradients(plan)
    if plan.stage == 1:
        large = 0 if grows else -1
    else:
        large = int(grows or is_compact or (plan.accumulates and plan.offloads_optimizer))
    pieces = is_compact or plan.offloads_optimizer
    waits = (
        plan.grad_accum_dtype if sizes.has_grad_accum_attribute(plan) else sizes.trained_dtype(plan)
    )
    parts = plan.grad_accum_dtype.itemsize // waits.itemsize if is_compact else 0
    return owners.Keeping(weights, plan.reduce_bucket_size, large, pieces, parts, grows)


def _orthogonalizing(plan: Plan, groups: list[int]) -> tuple[int, ...]:
    """Of each shape the first rank that orthogonalises one of it (stage 3 deals them out)."""
    shapes = chain.from_iterable(
        enumerate(plan.model.parameters[i].shape for i in plan.group_indices[group])
        for group in groups
    )
    found: dict[tuple[int, ...], int] = {}
    for number, shape in shapes:
        found.setdefault(shape, ranks_of(plan).dealt_to(number))
    return (0, *found.values())
