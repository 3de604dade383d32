"""Temporaries that an optimizer's step makes and drops, at every step and at init."""

from collections.abc import Callable

from zero_sizer.hardware.device import Device
from zero_sizer.ledger.entries.conditions import (
    PER_TENSOR,
    STEPS_AT_INIT,
    has_master,
    is_zero3,
    updated_on,
)
from zero_sizer.ledger.entry import Category, Entry
from zero_sizer.ledger.moments import Moment
from zero_sizer.models.spec import Tensor
from zero_sizer.optimizers.table import Optimizer, Temporaries
from zero_sizer.plan import sizes
from zero_sizer.plan.plan import Plan
from zero_sizer.units import DType
from zero_sizer.zero.wrapper import Wrapper


def _update_live(plan: Plan) -> frozenset[Moment]:
    at_init = {Moment.WRAPPING} if plan.wrapper in STEPS_AT_INIT else set()
    return frozenset({Moment.UPDATE, *at_init})


def _largest_update(device: Device, *, masks: bool = False) -> Callable[[Plan], int]:
    """Elements of the temporaries while one partition is updated on ``device``."""

    def numel(plan: Plan) -> int:
        rows = list(zip(sizes.partition_optimizers(plan), updated_on(plan), strict=True))
        if plan.wrapper in PER_TENSOR:
            found = (
                _of_tensors(_tensors_of(plan, i), _made(row, device), masks)
                for i, (row, where) in enumerate(rows)
                if where is device
            )
            return max(found, default=0)
        largest: dict[int, tuple[Optimizer, int]] = {}  # an optimizer's largest partition
        for (row, where), n in zip(rows, sizes.partitions(plan), strict=True):
            if where is device and (id(row) not in largest or n > largest[id(row)][1]):
                largest[id(row)] = row, n
        kinds = largest.values()
        return max((_of_partition(_made(row, device), n, masks) for row, n in kinds), default=0)

    return numel


def _made(row: Optimizer, device: Device) -> Temporaries:
    return row.step if device is Device.GPU else row.host_step


def _of_tensors(tensors: tuple[Tensor, ...], made: Temporaries, masks: bool) -> int:
    """Temporaries of an optimizer that updates tensor by tensor."""
    if masks:
        return made.mask_of_updated * max((t.numel for t in tensors), default=0)
    before = (0, *(t.numel for t in tensors))
    largest = max(
        (
            (made.updated + (0 if t.is_matrix else made.updated_vector)) * t.numel
            + made.previous * n
            for t, n in zip(tensors, before, strict=False)
        ),
        default=0,
    )
    return made.all * sum([t.numel for t in tensors]) + largest


def _of_partition(made: Temporaries, numel: int, masks: bool) -> int:
    """Temporaries of an optimizer that is handed a partition as one vector."""
    if masks:
        return made.mask_of_updated * numel
    return (made.all + made.updated + made.updated_vector) * numel


def _tensors_of(plan: Plan, index: int) -> tuple[Tensor, ...]:
    return tuple(plan.model.parameters[i] for i in plan.group_indices[index])


ENTRIES = (
    Entry(
        name="optimizer_update_temporaries",
        category=Category.TEMPORARY,
        about="what the optimizer's loop materialises while it updates one partition",
        numel=_largest_update(Device.GPU),
        dtype=lambda p: p.master_dtype,
        live=_update_live,
        source="torch/optim/adam.py:_multi_tensor_adam and its like",
    ),
    Entry(
        name="optimizer_update_masks",
        category=Category.TEMPORARY,
        about="where the sign of the gradient changed (Rprop)",
        numel=_largest_update(Device.GPU, masks=True),
        dtype=lambda p: DType.BOOL,
        live=_update_live,
        source="torch/optim/rprop.py:_multi_tensor_rprop",
    ),
    Entry(
        name="optimizer_update_temporaries_on_host",
        category=Category.TEMPORARY,
        about="what a torch optimizer's for-loop materialises while it updates one partition",
        numel=_largest_update(Device.HOST),
        dtype=lambda p: p.master_dtype,
        live=frozenset({Moment.UPDATE}),
        device=lambda p: Device.HOST,
        source="torch/optim/adam.py:_single_tensor_adam; torch/utils/_foreach_utils.py: a host "
        "has no foreach kernels",
    ),
    Entry(
        name="zero_gradient_at_init",
        category=Category.TEMPORARY,
        about="gradients of zeros, allocated to initialise the optimizer and dropped",
        numel=lambda p: (
            max(sizes.partitions(p), default=0) if is_zero3(p) else sizes.partition_numel(p)
        ),
        dtype=lambda p: p.master_dtype,
        live=frozenset({Moment.WRAPPING}),
        when=lambda p: has_master(p) and p.wrapper is not Wrapper.BF16 and not p.offloads_optimizer,
        source="runtime/zero/stage_1_and_2.py:934-953, runtime/zero/stage3.py:1304-1306, "
        "runtime/fp16/fused_optimizer.py:113-126",
    ),
    Entry(
        name="zero_gradient_of_weights_at_init",
        category=Category.TEMPORARY,
        about="gradients of zeros of the 16-bit weights, beside those of their fp32 copies",
        numel=sizes.num_trainable,
        dtype=lambda p: p.model_dtype,
        live=frozenset({Moment.WRAPPING}),
        when=lambda p: p.wrapper is Wrapper.FP16_UNFUSED,
        source="runtime/fp16/unfused_optimizer.py:412-430",
    ),
)
