"""Muon: its momentum, which follows the gradients, its updates, and whole matrices on the way."""

from itertools import islice

from zero_sizer.hardware.device import Device
from zero_sizer.hardware.workspaces import SOURCE
from zero_sizer.ledger.entries.conditions import (
    STEPS_AT_INIT,
    is_zero3,
    is_zero12,
    largest_cast,
)
from zero_sizer.ledger.entry import Category, Entry
from zero_sizer.ledger.moments import AFTER_FIRST_STEP, FROM_WRAPPING, Moment
from zero_sizer.plan import sizes
from zero_sizer.plan.plan import Plan
from zero_sizer.units import DType, num_bytes
from zero_sizer.zero import muon, partition
from zero_sizer.zero.wrapper import Wrapper

_WHOLE = (Wrapper.NONE, Wrapper.FP16_FUSED, Wrapper.FP16_UNFUSED)


def _muon_groups(plan: Plan) -> tuple[int, ...]:
    return tuple(i for i, row in enumerate(plan.group_optimizers) if row.newton_schulz)


def _groups(plan: Plan) -> tuple[tuple[int, ...], ...]:
    return tuple(sizes.groups(plan)[i] for i in _muon_groups(plan))


def _partitions(plan: Plan) -> int:
    pairs = zip(sizes.partitions(plan), sizes.partition_optimizers(plan), strict=True)
    return sum(numel for numel, row in pairs if row.newton_schulz)


def _is_staged(plan: Plan) -> bool:
    """ZeRO-1/2 on the GPU: momentum of whole tensors, written through a second buffer."""
    return is_zero12(plan) and not plan.offloads_optimizer


def _momentum_numel(plan: Plan) -> int:
    if _is_staged(plan):
        return sizes.touched_numel(plan, _groups(plan))
    return _partitions(plan) - sum(_swapped_momentums(plan))


def _swapped_momentums(plan: Plan) -> tuple[int, ...]:
    """Elements of the sub-groups whose momentum is on NVMe, where it lies in fp32."""
    if plan.keeps_momentum:
        return ()
    rows = zip(sizes.partitions(plan), sizes.partition_optimizers(plan), strict=True)
    return tuple(n for n, row in rows if row.newton_schulz and sizes.is_swapped(plan, n))


def _momentum_dtype(plan: Plan) -> DType:
    if plan.wrapper in (*_WHOLE, Wrapper.BF16):
        return plan.master_dtype
    if is_zero3(plan):
        return plan.comm_dtype
    return plan.master_dtype if plan.offloads_optimizer else plan.model_dtype


def _live(plan: Plan) -> frozenset[Moment]:
    at_init = plan.wrapper in (Wrapper.ZERO3, Wrapper.FP16_UNFUSED)
    return FROM_WRAPPING if at_init else AFTER_FIRST_STEP


def _work(plan: Plan) -> muon.Work:
    """What orthogonalising takes in the step; ZeRO-1/2 without offload does it in backward."""
    method = plan.optimizer.newton_schulz
    match plan.wrapper:
        case Wrapper.ZERO12 if plan.offloads_optimizer:
            return muon.offloaded12(_flat_groups(plan), plan.rank, method)
        case Wrapper.ZERO12:
            return muon.Work()
        case Wrapper.BF16:
            return muon.exchanged(_flat_groups(plan), plan.rank, method)
        case Wrapper.ZERO3:
            return _partitioned_work(plan)
        case _:
            shapes = tuple(shape for i in _muon_groups(plan) for shape in _shapes(plan, i))
            return muon.tensor_by_tensor(shapes, DType.FP32, method)


def _partitioned_work(plan: Plan) -> muon.Work:
    offloads = plan.offloads_optimizer
    how = muon.Gathers(
        ranks=plan.dp_world_size,
        rank=plan.rank,
        dtype=plan.grad_accum_dtype if offloads else plan.comm_dtype,
        method=plan.optimizer.newton_schulz,
        bucket=plan.reduce_bucket_size,
    )
    found: list[tuple[muon.Shape, ...]] = []
    for i in _muon_groups(plan):
        shapes = iter(_shapes(plan, i))
        found += [tuple(islice(shapes, len(numels))) for numels in sizes.sub_groups(plan)[i]]
    sub_groups = tuple(found)
    if offloads:
        dtype = plan.master_dtype if _swapped_momentums(plan) else plan.comm_dtype
        return muon.offloaded3(sub_groups, how, dtype.itemsize)
    return muon.partitioned(sub_groups, how)


def _shapes(plan: Plan, group: int) -> tuple[muon.Shape, ...]:
    return tuple(plan.model.parameters[i].shape for i in plan.group_indices[group])


def _flat_groups(plan: Plan) -> tuple[muon.Flat, ...]:
    return tuple(
        muon.Flat(
            shapes=sizes.ordered(plan, _shapes(plan, i)),
            offsets=partition.flat_offsets(
                sizes.ordered(plan, sizes.groups(plan)[i]), plan.align_tensors, plan.itemsize
            )[0],
            partition=sizes.partitions(plan)[i],
            ranks=plan.dp_world_size,
        )
        for i in _muon_groups(plan)
    )


def _work_live(plan: Plan) -> frozenset[Moment]:
    """In the first step, at init, Adam's states come only after, and are more."""
    return frozenset({Moment.UPDATE if plan.wrapper in _WHOLE else Moment.ORTHOGONALIZE})


def _steps_at_init(plan: Plan) -> bool:
    return bool(_groups(plan)) and plan.wrapper in STEPS_AT_INIT


def _first_step(plan: Plan) -> int:
    shapes = tuple(shape for i in _muon_groups(plan) for shape in _shapes(plan, i))
    rows = zip(plan.group_indices, plan.group_optimizers, strict=True)
    states = sum(
        len(row.states) * plan.model.parameters[index].numel
        for group, row in rows
        if not row.newton_schulz
        for index in group
    )
    later = num_bytes(states, plan.master_dtype)
    return muon.first_step(shapes, plan.master_dtype, plan.optimizer.newton_schulz, later)


def _updates_live(plan: Plan) -> frozenset[Moment]:
    """Until Muon's group, the first, is flattened; another group's flattening may hold more."""
    live = frozenset({Moment.OVERFLOW, Moment.ORTHOGONALIZE, Moment.NORM})
    return live | {Moment.CAST} if largest_cast(plan) in _muon_groups(plan) else live


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
        name="new_momentum_buffer",
        category=Category.OPTIMIZER_STATES,
        about="the momentum of a sub-group that the first step makes before it goes to NVMe",
        numel=lambda p: max(_swapped_momentums(p)),
        dtype=_momentum_dtype,
        live=frozenset({Moment.ORTHOGONALIZE}),
        when=lambda p: bool(_swapped_momentums(p)),
        device=lambda p: Device.HOST,
        source="runtime/zero/stage3.py:1118-1124,2611-2618, "
        "runtime/swap_tensor/partitioned_optimizer_swapper.py:125-141",
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
    Entry(
        name="muon_updates",
        category=Category.GRADIENTS,
        about="orthogonal updates of every matrix that this rank's partition touches",
        numel=_momentum_numel,
        dtype=_momentum_dtype,
        live=_updates_live,
        when=lambda p: bool(_groups(p)) and _is_staged(p),
        source="runtime/zero/stage_1_and_2.py:2740-2765,2858-2875",
    ),
    Entry(
        name="muon_updates_at_init",
        category=Category.TEMPORARY,
        about="updates of the step at init, of which the last is there while Adam makes its states",
        numel=_first_step,
        dtype=lambda p: DType.UINT8,  # counted in bytes
        live=frozenset({Moment.WRAPPING}),
        when=_steps_at_init,
        source="runtime/fp16/unfused_optimizer.py:412-433, runtime/zero/muon/muon_optimizer.py",
    ),
    Entry(
        name="cublas_workspace_at_init",
        category=Category.RUNTIME,
        about="the workspace PyTorch gives cuBLAS in forward's thread, for the step at init",
        numel=lambda p: p.blas_workspace,
        dtype=lambda p: DType.UINT8,
        live=FROM_WRAPPING - AFTER_FIRST_STEP - {Moment.STAGING},
        when=_steps_at_init,
        source=SOURCE,
    ),
    Entry(
        name="muon_allgather_buffers",
        category=Category.COMMUNICATION,
        about="buffers that Muon's gathers keep for the next step, 256 MiB at most",
        numel=lambda p: _work(p).kept,
        dtype=lambda p: DType.UINT8,  # counted in bytes: several dtypes together
        live=AFTER_FIRST_STEP,
        when=lambda p: bool(_groups(p)),
        source="runtime/zero/stage_1_and_2.py:1986-2009, runtime/zero/stage3.py:2094-2114",
    ),
    Entry(
        name="muon_matrices",
        category=Category.TEMPORARY,
        about="gradients and momentums gathered whole, and what orthogonalising them takes",
        numel=lambda p: _work(p).peak,
        dtype=lambda p: DType.UINT8,  # counted in bytes: several dtypes together
        live=_work_live,
        when=lambda p: bool(_groups(p)),
        source="runtime/zero/muon/original_muon.py, runtime/zero/stage3.py:1697-1862,2588-2680, "
        "runtime/zero/stage_1_and_2.py:2059-2123, runtime/bf16_optimizer.py:436-500",
    ),
)
