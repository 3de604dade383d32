"""Conditions that several features share; each names the line that decides it."""

from zero_sizer.hardware.device import Device
from zero_sizer.ledger.moments import Moment
from zero_sizer.plan import sizes
from zero_sizer.plan.parallel import hpz_ranks
from zero_sizer.plan.plan import Plan, derived, derived_of_rank
from zero_sizer.timeline.reduction_rules import buffers_gradients
from zero_sizer.units import DType
from zero_sizer.zero import construction, partition
from zero_sizer.zero.wrapper import Wrapper

PER_TENSOR = (Wrapper.NONE, Wrapper.FP16_UNFUSED)
"""Wrappers whose optimizer holds tensor by tensor; others hand it flat partitions."""

STEPS_AT_INIT = (Wrapper.FP16_FUSED, Wrapper.FP16_UNFUSED)
"""Wrappers that run a step with gradients of zeros (``initialize_optimizer_states``)."""


def is_zero12(plan: Plan) -> bool:
    """DeepSpeedZeroOptimizer is in charge."""
    return plan.wrapper is Wrapper.ZERO12


def is_zero3(plan: Plan) -> bool:
    """DeepSpeedZeroOptimizer_Stage3 is in charge."""
    return plan.wrapper is Wrapper.ZERO3


def has_master(plan: Plan) -> bool:
    """True if the optimizer updates a copy of the weights."""
    return plan.wrapper is not Wrapper.NONE


@derived
def updated_on(plan: Plan) -> tuple[Device, ...]:
    """Where each partition is updated (``ratio``: stage3.py:1099-1108)."""
    count = len(sizes.partitions(plan))
    if not plan.offloads_optimizer:
        return (Device.GPU,) * count
    on_gpu = sizes.num_on_gpu(plan)
    return (Device.GPU,) * on_gpu + (Device.HOST,) * (count - on_gpu)


@derived
def resident(plan: Plan) -> tuple[int, ...]:
    """Elements of each partition whose master and states are in memory; 0 of those on NVMe."""
    numels = sizes.partitions(plan)
    if plan.optimizer_device is not Device.NVME:
        return numels
    return tuple([0 if sizes.is_swapped(plan, numel) else numel for numel in numels])


@derived
def resident_on(plan: Plan) -> dict[Device, int]:
    """Elements of all of them on each device."""
    found: dict[Device, int] = {}
    for numel, where in zip(resident(plan), updated_on(plan), strict=True):
        found[where] = found.get(where, 0) + numel
    return found


def flattened_live(plan: Plan) -> frozenset[Moment]:
    """A flat gradient of the master's dtype is what the optimizer is handed; others are cast."""
    flat = flattened_dtype(plan, largest_cast(plan)) if is_zero12(plan) else plan.grad_accum_dtype
    needs_cast = flat is not plan.master_dtype
    return frozenset({Moment.CAST} if needs_cast else {Moment.CAST, Moment.UPDATE})


def parked_on(plan: Plan) -> Device:
    """Where a partition waits; one that comes from NVMe passes through the host."""
    return Device.GPU if plan.param_device is Device.GPU else Device.HOST


def under_init(plan: Plan) -> bool:
    """True if the model is built under ``zero.Init``."""
    return plan.wrapper is Wrapper.ZERO3 and plan.zero_init


def is_cut_whole(plan: Plan) -> bool:
    """True if a whole model is on the GPU when it is cut, and its partitions stay there."""
    return plan.wrapper is Wrapper.ZERO3 and not plan.zero_init and plan.param_device is Device.GPU


def being_cut(plan: Plan) -> int:
    """Most bytes that partitions add to a whole model on the GPU."""
    return construction.most_being_cut(
        sizes.numels(plan), sizes.itemsizes(plan), plan.dp_world_size, hpz_ranks(plan)
    )


def pieces_of(
    plan: Plan, groups: tuple[tuple[int, ...], ...] | None = None
) -> tuple[partition.Piece, ...]:
    """Tensors that this rank's ZeRO-1/2 partitions of ``groups`` touch; of all if not given."""
    where = (plan.dp_world_size, plan.rank, plan.align_tensors, plan.itemsize)
    chosen = sizes.groups(plan) if groups is None else groups
    found = (partition.pieces(sizes.ordered(plan, group), *where) for group in chosen)
    return tuple(piece for group in found for piece in group)


@derived_of_rank
def largest_cast(plan: Plan) -> int:
    """The ZeRO-1/2 group at whose flattening and casting most is held.

    Muon's updates are beside its own gradients then, and gone when the next group's turn comes;
    so are gradients that lie in no buffer.
    """
    held = []
    groups, is_loose = sizes.groups(plan), is_zero12(plan) and not buffers_gradients(plan)
    for index, (numel, group) in enumerate(zip(sizes.partitions(plan), groups, strict=True)):
        flat, master = flattened_dtype(plan, index).itemsize, plan.master_dtype.itemsize
        is_muon = bool(plan.group_optimizers[index].newton_schulz)
        beside = sizes.touched_numel(plan, (group,)) if is_muon else 0
        beside += sizes.touched_numel(plan, groups[index + is_muon :]) if is_loose else 0
        held.append(numel * (flat + (master if master != flat else 0)) + plan.itemsize * beside)
    return held.index(max(held)) if held else 0


def flattened_dtype(plan: Plan, group: int) -> DType:
    """Dtype of a ZeRO-1/2 group's gradients in the step: Muon's are updates in the weights' own."""
    rows = plan.group_optimizers
    is_muon = bool(rows) and bool(rows[group].newton_schulz)
    return plan.model_dtype if is_muon and plan.stage == 2 else plan.grad_accum_dtype
