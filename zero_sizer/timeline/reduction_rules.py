"""From a plan to the rules by which gradients are reduced, and what one rank holds of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any

from zero_sizer.hardware.device import Device
from zero_sizer.plan import sizes
from zero_sizer.plan.plan import Plan, derived
from zero_sizer.timeline import autocast_rules
from zero_sizer.units import DType
from zero_sizer.zero import muon, partition
from zero_sizer.zero.gradient_flow import Rules, Scheme
from zero_sizer.zero.share import Own, Share
from zero_sizer.zero.wrapper import Wrapper


def rules_of(plan: Plan) -> Rules:
    """See ``gradient_flow.Rules``; each line follows the feature file of its wrapper."""
    scheme, itemsize = _scheme(plan), _itemsize(plan)
    if scheme is Scheme.AFTER:  # knows no bucket of ZeRO's
        return Rules(
            scheme=scheme,
            itemsize=itemsize,
            made_itemsize=itemsize,
            bucket_itemsize=_reduced_dtype(plan).itemsize,
            adds_in_place=_adds_in_place(plan, scheme),
            whole_groups=plan.wrapper is Wrapper.BF16,
        )
    return Rules(
        scheme=scheme,
        itemsize=itemsize,
        made_itemsize=sizes.trained_dtype(plan).itemsize,
        bucket_itemsize=itemsize if buffers_gradients(plan) else 0,
        bucket_numel=plan.reduce_bucket_size,
        num_buckets=(2 if plan.overlap_comm else 1) * len(comm_dtypes(plan)),
        adds_in_place=_adds_in_place(plan, scheme),
        buffers_held=plan.stage == 1 and plan.accumulates,
        keeps_large=plan.stage == 1,
        clones_large=plan.offloads_optimizer and scheme is not Scheme.SCATTERED,
        frees_late=plan.stage == 2 and plan.overlap_comm and not buffers_gradients(plan),
    )


def comm_dtypes(plan: Plan) -> tuple[DType, ...]:
    """Dtypes in which gradients are reduced, each with buckets of its own."""
    if plan.autocast_dtype is None:
        return (plan.comm_dtype,)
    apart = len(autocast_rules.communicated_apart(plan))
    within = (plan.autocast_dtype,) if apart < len(sizes.trainable(plan)) else ()
    return (*within, sizes.trained_dtype(plan)) if apart else within


def buffers_gradients(plan: Plan) -> bool:
    """True if the bucket has a buffer, which gradients larger than it go by."""
    return plan.contiguous_gradients or (plan.offloads_optimizer and plan.stage < 3)


def cuts_bucket(plan: Plan) -> bool:
    """True if the bucket is all-reduced, then cut: ranks differ where a tensor fills no partition.

    stage3.py:1673-1675
    """
    is_whole = plan.contiguous_gradients and not plan.reduce_scatter
    return is_whole and plan.wrapper is Wrapper.ZERO3


def share_of(plan: Plan) -> Share:
    """See ``reduction.Share``."""
    scheme = _scheme(plan)
    if scheme is Scheme.AFTER:  # every rank does the same
        held = _held(plan, scheme, _itemsize(plan))
        return Share(own=Own(held=held(0)), cast_itemsizes=_sent_copies(plan))
    own = owns_of(plan, (plan.rank,))[0]
    cut_ranks = (plan.rank,) if cuts_bucket(plan) else ()
    is_scaled = scheme is Scheme.SCATTERED and not plan.prescale_gradients
    return Share(
        **_shared(plan),
        ranks=plan.dp_world_size,
        own=own,
        cut_ranks=cut_ranks,
        multiplies=is_scaled and plan.gradient_predivide_factor != plan.dp_world_size,
    )


@derived
def _shared(plan: Plan) -> Mapping[str, Any]:
    """Fields of ``reduction.Share`` that are the same on any rank of any number."""
    compact = sizes.is_compact_group(plan) if plan.wrapper is Wrapper.ZERO12 else ()
    is_scattered = _scheme(plan) is Scheme.SCATTERED
    return {
        "cast_itemsizes": _sent_copies(plan),
        "copies": plan.reduce_scatter and (plan.multi_rank_allreduce or is_scattered),
        "by_owner": plan.reduce_scatter
        and not (plan.multi_rank_allreduce or is_scattered)
        and buffers_gradients(plan),
        "offloads": plan.offloads_optimizer,
        "master_itemsize": _cast_on_its_way(plan),
        "brought_itemsize": plan.grad_accum_dtype.itemsize,
        "accumulated_itemsize": plan.grad_accum_dtype.itemsize,
        "divides_first": is_scattered
        and not plan.prescale_gradients
        and plan.gradient_predivide_factor != 1.0,
        "part_itemsizes": _accumulated_copies(plan),
        "casts_together": plan.optimizer_device is Device.NVME,
        "swap_least": sizes.least_swapped_bytes(plan),
        "swap_unit": sizes.swap_unit_bytes(plan),
        "compact": compact,
        "keeps_own": _kept_by_owners(plan, compact),
        "compact_itemsize": _accumulated_copies(plan)[0],
        "align_tensors": plan.align_tensors,
        "deals_tensors": sizes.deals_tensors(plan),
    }


def _kept_by_owners(plan: Plan, compact: tuple[bool, ...]) -> tuple[bool, ...]:
    """Groups of which nothing but the epilogue clears an owner's gradients in no buffer.

    stage_1_and_2.py:2178-2182, 2262-2274
    """
    if not buffers_gradients(plan):
        return (True,) * len(sizes.groups(plan))
    return compact if plan.stage == 2 and not plan.offloads_optimizer else ()


def owns_of(plan: Plan, ranks: Iterable[int]) -> tuple[Own, ...]:
    """Differences between some ranks, of each of them."""
    kept, held = _kept(plan), _held(plan, _scheme(plan), _itemsize(plan))
    is_muon = any(row.newton_schulz for row in plan.group_optimizers)
    return tuple(
        Own(rank, kept(rank), held(rank), _orthogonalized(plan, rank) if is_muon else 0)
        for rank in ranks
    )


def _itemsize(plan: Plan) -> int:
    """Bytes per element of a gradient that waits for its reduction."""
    if sizes.has_grad_accum_attribute(plan):
        return plan.grad_accum_dtype.itemsize
    return sizes.trained_dtype(plan).itemsize


def _orthogonalized(plan: Plan, rank: int) -> int:
    """Bytes while Muon makes its updates of reduced gradients, at the end of backward.

    stage_1_and_2.py:1036-1059, 2838-2875; with offload the step makes them.
    """
    if plan.wrapper is not Wrapper.ZERO12 or plan.offloads_optimizer:
        return 0
    dtype = (
        plan.grad_accum_dtype if sizes.has_grad_accum_attribute(plan) else sizes.trained_dtype(plan)
    )
    most = 0
    for number, row in enumerate(plan.group_optimizers):
        if row.newton_schulz:
            where = (plan.dp_world_size, rank, plan.align_tensors, plan.itemsize)
            found = partition.pieces(sizes.ordered(plan, sizes.groups(plan)[number]), *where)
            order = sizes.flat_order(plan)[number]
            shapes = tuple(plan.model.parameters[order[piece.number]].shape for piece in found)
            most = max(most, muon.all_updates(shapes, dtype, row.newton_schulz))
    return most


def _sent(plan: Plan) -> tuple[DType, DType]:
    """Dtypes of communication; the second is of ``Tensors.apart`` (base_optimizer.py:393-397)."""
    if plan.autocast_dtype is None or plan.wrapper is Wrapper.NONE:
        return plan.comm_dtype, plan.comm_dtype
    return plan.autocast_dtype, sizes.trained_dtype(plan)


def _sent_copies(plan: Plan) -> tuple[int, int]:
    """Bytes per element of the copies in those dtypes."""
    made = _reduced_dtype(plan)
    first, second = (dtype.itemsize if dtype is not made else 0 for dtype in _sent(plan))
    return first, second


def _reduced_dtype(plan: Plan) -> DType:
    """What is reduced: ``BF16_Optimizer`` hands over what it accumulated (engine.py:3795-3870).

    So does stage 1 where gradients accumulate apart from ``.grad`` (stage_1_and_2.py:1248-1257).
    """
    if plan.wrapper is Wrapper.BF16 or sizes.has_grad_accum_attribute(plan):
        return plan.grad_accum_dtype
    return sizes.trained_dtype(plan)


def _accumulated_copies(plan: Plan) -> tuple[int, int]:
    """Bytes per element of the copies of what was reduced, in the dtype that is accumulated."""
    to = plan.grad_accum_dtype
    first, second = (to.itemsize if dtype is not to else 0 for dtype in _sent(plan))
    return first, second


def _cast_on_its_way(plan: Plan) -> int:
    """Bytes per element of the copy that is cast before it goes to the host."""
    is_cast = plan.offloads_optimizer and plan.master_dtype is not plan.grad_accum_dtype
    return plan.master_dtype.itemsize if is_cast else 0


def _scheme(plan: Plan) -> Scheme:
    if plan.wrapper is Wrapper.ZERO3:
        return Scheme.SCATTERED
    if plan.wrapper is not Wrapper.ZERO12:
        return Scheme.AFTER
    return Scheme.HOOKED if plan.stage == 2 or plan.overlap_comm else Scheme.DEFERRED


_OfRank = Callable[[int], int]


def _kept(plan: Plan) -> _OfRank:
    """Bytes of a rank's reduced gradients (stage_1_and_2.py:1024-1045, 1259-1326)."""
    if plan.wrapper is not Wrapper.ZERO12:
        return _always(0)
    # stage 2 has it from the first micro step on
    compact = 0 if plan.accumulates and plan.stage == 2 else _compact_bytes(plan)
    # without a buffer they are not copied either (stage_1_and_2.py:2270-2274)
    is_whole = buffers_gradients(plan) and not sizes.has_compact_gradients(plan)
    if plan.offloads_optimizer or not is_whole:
        return _always(compact)
    return _whole(plan, compact)


def _always(num_bytes: int) -> _OfRank:
    return lambda rank: num_bytes


def _whole(plan: Plan, more: int) -> _OfRank:
    """Bytes of gradients kept whole, and as many more."""
    numels, itemsize = sizes.gradient_numels(plan), plan.itemsize
    return lambda rank: numels[rank] * itemsize + more


def compact_partitions(plan: Plan, first: int = 0) -> tuple[int, ...]:
    """Partitions whose gradients lie in an fp32 buffer of their own.

    ``first`` is the group to begin at.
    """
    rows = zip(sizes.partitions(plan), sizes.is_compact_group(plan), strict=True)
    return tuple(numel for numel, is_compact in islice(rows, first, None) if is_compact)


def _compact_bytes(plan: Plan) -> int:
    return sum(compact_partitions(plan)) * plan.grad_accum_dtype.itemsize


def _held(plan: Plan, scheme: Scheme, itemsize: int) -> _OfRank:
    """Bytes of gradients that earlier micro steps left a rank."""
    if not plan.accumulates or scheme is Scheme.SCATTERED:
        return _always(0)
    if scheme is Scheme.AFTER and plan.immediate_grad_update:
        return _always(0)
    if scheme is Scheme.AFTER or plan.stage == 1:
        return _always(sizes.num_trainable(plan) * itemsize)
    if plan.offloads_optimizer or sizes.has_compact_gradients(plan):
        return _always(_compact_bytes(plan))
    return _whole(plan, _compact_bytes(plan))


def _adds_in_place(plan: Plan, scheme: Scheme) -> bool:
    if plan.wrapper is Wrapper.BF16 and plan.immediate_grad_update:
        return True  # accumulated in fp32 and dropped, bf16_optimizer.py:707-715
    whole = scheme is Scheme.AFTER or plan.stage == 1
    return plan.accumulates and whole and scheme is not Scheme.SCATTERED
