"""Muon's momentum, which lives beside the other optimizers' states but follows the gradients."""

from zero_sizer.ledger import Category, Entry
from zero_sizer.moments import AFTER_FIRST_STEP, FROM_WRAPPING, Moment
from zero_sizer.optimizers import MUON
from zero_sizer.plan import Device, Plan
from zero_sizer.units import DType
from zero_sizer.zero.wrapper import Wrapper

_WHOLE = (Wrapper.NONE, Wrapper.FP16_FUSED, Wrapper.FP16_UNFUSED)


def _groups(plan: Plan) -> tuple[tuple[int, ...], ...]:
    pairs = zip(plan.groups, plan.group_optimizers, strict=True)
    return tuple(group for group, row in pairs if row is MUON)


def _partitions(plan: Plan) -> int:
    pairs = zip(plan.partitions, plan.partition_optimizers, strict=True)
    return sum(numel for numel, row in pairs if row is MUON)


def _is_staged(plan: Plan) -> bool:
    """ZeRO-1/2 on the GPU: momentum of whole tensors, written through a second buffer."""
    return plan.wrapper is Wrapper.ZERO12 and not plan.offloads_optimizer


def _momentum_numel(plan: Plan) -> int:
    return plan.touched_numel(_groups(plan)) if _is_staged(plan) else _partitions(plan)


def _momentum_dtype(plan: Plan) -> DType:
    if plan.wrapper in _WHOLE:
        return plan.master_dtype
    if plan.wrapper is Wrapper.ZERO3:
        return plan.comm_dtype
    return plan.master_dtype if plan.offloads_optimizer else plan.model_dtype


def _live(plan: Plan) -> frozenset[Moment]:
    at_init = plan.wrapper in (Wrapper.ZERO3, Wrapper.FP16_UNFUSED)
    return FROM_WRAPPING if at_init else AFTER_FIRST_STEP


ENTRIES = (
    Entry(
        name="momentum_buffer",
        category=Category.OPTIMIZER_STATES,
        about="Muon's momentum of its matrices",
        numel=_momentum_numel,
        dtype=_momentum_dtype,
        live=_live,
        when=lambda p: bool(_groups(p)),
        device=lambda p: Device.HOST if p.offloads_optimizer else Device.GPU,
        source="runtime/zero/stage_1_and_2.py:2072-2085,2805-2836, "
        "runtime/zero/stage3.py:1069-1082",
    ),
    Entry(
        name="muon_pending_momentum",
        category=Category.GRADIENTS,
        about="the momentum of a step that may still be discarded, kept for the next one",
        numel=_momentum_numel,
        dtype=_momentum_dtype,
        live=AFTER_FIRST_STEP,
        when=lambda p: bool(_groups(p)) and _is_staged(p),
        source="runtime/zero/stage_1_and_2.py:2985-3002",
    ),
)
