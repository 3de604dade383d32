"""ZeRO-1 and ZeRO-2 (DeepSpeedZeroOptimizer): gradients and temporaries of the step."""

from collections.abc import Callable
from itertools import islice

from zero_sizer.ledger.entries.conditions import (
    flattened_dtype,
    flattened_live,
    largest_cast,
    pieces_of,
)
from zero_sizer.ledger.entry import Category, Entry
from zero_sizer.ledger.moments import STEP, Moment
from zero_sizer.plan import sizes
from zero_sizer.plan.plan import Plan, derived_of_rank
from zero_sizer.timeline.compose import left_by_backward
from zero_sizer.timeline.reduction_rules import buffers_gradients, compact_partitions
from zero_sizer.units import DType
from zero_sizer.zero.wrapper import Wrapper

_SOURCE = "runtime/zero/stage_1_and_2.py:"


def _is_slice(plan: Plan) -> bool:
    """The partition lies inside one tensor: its flat gradient is a view of that tensor's."""
    touched = pieces_of(plan)
    return len(touched) == 1 and touched[0].numel >= sizes.partition_numel(plan)


def _gradients(plan: Plan, first: int = 0) -> int:
    """Elements of whole gradients that groups from ``first`` on refer to.

    They lie in one storage for all groups, or in one for each tensor. Muon's groups refer to
    updates instead, groups that are accumulated in fp32 to partitions.
    """
    rows = zip(sizes.groups(plan), sizes.is_compact_group(plan), plan.group_optimizers, strict=True)
    whole = tuple(
        group
        for group, is_compact, row in islice(rows, first, None)
        if not (is_compact or row.newton_schulz)
    )
    if not whole:
        return 0
    return (
        sizes.gradient_numel(plan) if buffers_gradients(plan) else sizes.touched_numel(plan, whole)
    )


def _gradients_cast(plan: Plan) -> int:
    return _gradients(plan, largest_cast(plan))


def _gradients_updated(plan: Plan) -> int:
    """Those of later groups; its own where the optimizer updates from a view of them."""
    is_updated_from = Moment.UPDATE in flattened_live(plan) and _is_slice(plan)
    return _gradients(plan, largest_cast(plan) + (not is_updated_from))


@derived_of_rank
def _gradients_live(plan: Plan) -> frozenset[Moment]:
    """Until the flattening of the last group that refers to them lets go."""
    later = {Moment.CAST: _gradients_cast(plan), Moment.UPDATE: _gradients_updated(plan)}
    return STEP - {moment for moment, numel in later.items() if numel != _gradients(plan)}


def _gradients_fewer(moment: Moment) -> Callable[[Plan], bool]:
    return lambda p: _has_gradients(p) and moment not in _gradients_live(p)


def _has_gradients(plan: Plan) -> bool:
    return _on_gpu(plan) and not sizes.has_compact_gradients(plan)


def _compact_live(plan: Plan) -> frozenset[Moment]:
    """Where it is cast for the update, it goes before that (stage_1_and_2.py:3105-3123)."""
    return STEP - {Moment.UPDATE} if _casts_compact(plan) else STEP


def _casts_compact(plan: Plan) -> bool:
    is_cast = plan.master_dtype is not plan.grad_accum_dtype
    return is_cast and not plan.offloads_optimizer


def _compact_waiting(plan: Plan) -> tuple[int, ...]:
    """Partitions of the groups after the one that is updated."""
    return compact_partitions(plan, largest_cast(plan) + 1)


def _left_live(plan: Plan) -> frozenset[Moment]:
    """Without offload a group's are freed when its turn comes."""
    return STEP if plan.offloads_optimizer else STEP - {Moment.CAST, Moment.UPDATE}


def _cast_numel(plan: Plan) -> int:
    return sizes.partitions(plan)[largest_cast(plan)] if sizes.partitions(plan) else 0


def _on_gpu(plan: Plan) -> bool:
    return plan.wrapper is Wrapper.ZERO12 and not plan.offloads_optimizer


def _normed_numel(plan: Plan) -> int:
    """Elements of the largest gradient slice of which the norm is taken."""
    return max((piece.inside for piece in pieces_of(plan)), default=0)


ENTRIES = (
    Entry(
        name="grads_in_partition",
        category=Category.GRADIENTS,
        about="whole gradients of every tensor that this rank's partition touches",
        numel=_gradients,
        dtype=lambda p: p.model_dtype,
        live=_gradients_live,
        when=_has_gradients,
        source=_SOURCE + "1024-1045,2184-2203,3127-3132",
    ),
    Entry(
        name="gradients_not_cast",
        category=Category.GRADIENTS,
        about="the same of the group that is cast and of those after it",
        numel=_gradients_cast,
        dtype=lambda p: p.model_dtype,
        live=frozenset({Moment.CAST}),
        when=_gradients_fewer(Moment.CAST),
        source=_SOURCE + "3086-3132",
    ),
    Entry(
        name="gradients_that_wait",
        category=Category.GRADIENTS,
        about="the same of the groups after the one that is updated",
        numel=_gradients_updated,
        dtype=lambda p: p.model_dtype,
        live=frozenset({Moment.UPDATE}),
        when=_gradients_fewer(Moment.UPDATE),
        source=_SOURCE + "3086-3132",
    ),
    Entry(
        name="compact_gradient_partition",
        category=Category.GRADIENTS,
        about="this rank's part of the gradients in fp32, on the GPU even when offloading",
        numel=compact_partitions,
        dtype=lambda p: p.grad_accum_dtype,
        live=_compact_live,
        when=lambda p: p.wrapper is Wrapper.ZERO12,
        source=_SOURCE + "1259-1326",
    ),
    Entry(
        name="compact_gradients_that_wait",
        category=Category.GRADIENTS,
        about="the same of the groups after the one that is updated, where it was cast",
        numel=_compact_waiting,
        dtype=lambda p: p.grad_accum_dtype,
        live=frozenset({Moment.UPDATE}),
        when=lambda p: p.wrapper is Wrapper.ZERO12 and _casts_compact(p),
        source=_SOURCE + "3095-3131",
    ),
    Entry(
        name="grad_accum_of_other_ranks",
        category=Category.GRADIENTS,
        about="gradients accumulated in fp32, cleared at once for this rank's tensors alone",
        numel=left_by_backward,
        dtype=lambda p: p.grad_accum_dtype,
        live=_left_live,
        when=sizes.has_grad_accum_attribute,
        source=_SOURCE + "1133-1144,1348-1352,2159,2181,2898-2901,3087",
    ),
    Entry(
        name="norm_in_fp64",
        category=Category.TEMPORARY,
        about="one gradient slice in fp64 while the norm is taken",
        numel=_normed_numel,
        dtype=lambda p: DType.FP64,
        live=frozenset({Moment.NORM}),
        when=_on_gpu,
        source="runtime/zero/utils.py:59-63",
    ),
    Entry(
        name="flattened_gradient",
        category=Category.TEMPORARY,
        about="the partition's gradients as one flat tensor",
        numel=_cast_numel,
        dtype=lambda p: flattened_dtype(p, largest_cast(p)),
        live=flattened_live,
        when=lambda p: _on_gpu(p) and not sizes.has_compact_gradients(p) and not _is_slice(p),
        source=_SOURCE + "3095-3105",
    ),
    Entry(
        name="single_grad_partition",
        category=Category.TEMPORARY,
        about="the flat gradient cast to the master's dtype",
        numel=_cast_numel,
        dtype=lambda p: p.master_dtype,
        live=frozenset({Moment.CAST, Moment.UPDATE}),
        when=lambda p: _on_gpu(p) and flattened_dtype(p, largest_cast(p)) is not p.master_dtype,
        source=_SOURCE + "3105-3123",
    ),
)
