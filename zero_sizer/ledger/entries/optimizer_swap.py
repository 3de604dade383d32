"""Optimizer states on NVMe (stage 3): the pool they pass through, their files, the first step."""

from zero_sizer.hardware.device import Device
from zero_sizer.ledger.entries.conditions import is_zero3
from zero_sizer.ledger.entry import Category, Entry
from zero_sizer.ledger.moments import AFTER_FIRST_STEP, FROM_WRAPPING, STEP, Moment
from zero_sizer.optimizers.table import QUANTIZED, Optimizer
from zero_sizer.plan import sizes
from zero_sizer.plan.plan import Plan
from zero_sizer.units import DType, round_up
from zero_sizer.zero import partition


def _is_swapping(plan: Plan) -> bool:
    return is_zero3(plan) and plan.optimizer_device is Device.NVME


def _aligned(plan: Plan, numel: int) -> int:
    """Elements after alignment to the AIO unit."""
    return round_up(numel, sizes.swap_unit_bytes(plan) // plan.master_dtype.itemsize)


def _num_states(row: Optimizer) -> int:
    return sum(1 for kind in row.states.values() if kind not in QUANTIZED)


def _swapped(plan: Plan) -> tuple[tuple[int, Optimizer], ...]:
    """Elements of each sub-group that lives on NVMe, and what updates it."""
    rows = zip(sizes.partitions(plan), sizes.partition_optimizers(plan), strict=True)
    return tuple((numel, row) for numel, row in rows if sizes.is_swapped(plan, numel))


def _in_files(plan: Plan) -> tuple[int, ...]:
    """Elements of a sub-group's files: weights, gradients, states."""
    return tuple(
        _aligned(plan, numel)
        * (2 + (0 if row.newton_schulz and plan.keeps_momentum else _num_states(row)))
        for numel, row in _swapped(plan)
    )


def _backed_up(plan: Plan) -> tuple[int, ...]:
    """Sub-groups on NVMe that torch's AdamW updates in place of DeepSpeed's (``ratio`` < 1)."""
    given = sizes.partitions(plan)[: sizes.num_by_ratio(plan)]
    return tuple(n for n in given if sizes.is_swapped(plan, n))


def _new_states_numel(plan: Plan) -> int:
    """Elements of the states that the first step makes, where most of them are there.

    The pipelined swapper writes copies and lets go of the states themselves only when it reads
    them again, in the second step (pipelined_optimizer_swapper.py:181-216). Muon's momentum is
    apart.
    """
    rows = _swapped(plan)[len(_backed_up(plan)) :]
    made = [numel * _num_states(row) for numel, row in rows if not row.newton_schulz]
    return sum(made) if plan.optimizer_pipelines else max(made, default=0)


def _waiting_numels(plan: Plan) -> tuple[int, ...]:
    """Gradients that are too small for NVMe, or no multiple of its blocks."""
    least, unit = sizes.least_swapped_bytes(plan), sizes.swap_unit_bytes(plan)
    parts = [partition.tensor_partition(n, plan.dp_world_size) for n in sizes.trainable(plan)]
    itemsize = plan.master_dtype.itemsize
    return tuple(n for n in parts if n * itemsize < least or n * itemsize % unit)


ENTRIES = (
    Entry(
        name="gradients_not_swapped",
        category=Category.GRADIENTS,
        about="gradients that stay on the GPU until the step: DeepSpeed writes none below 1 MiB "
        "to NVMe, and keeps those whole that are no multiple of a block",
        numel=_waiting_numels,
        dtype=lambda p: p.master_dtype,
        live=STEP,
        when=_is_swapping,
        source="runtime/swap_tensor/optimizer_utils.py:256-290,452-477",
    ),
    Entry(
        name="persistent_parameters_as_the_step_begins",
        category=Category.PARAMETERS,
        about="small tensors that stayed gathered, beside gradients that wait on the GPU, till the "
        "step releases them",
        numel=sizes.persistent_bytes,
        dtype=lambda p: DType.UINT8,  # counted in bytes: several dtypes together
        live=frozenset({Moment.OVERFLOW}),
        when=lambda p: _is_swapping(p) and sizes.gathers_copies(p),
        source="runtime/zero/stage3.py:2878",
    ),
    Entry(
        name="optimizer_swap_buffers",
        category=Category.OFFLOAD,
        about="pool through which optimizer states are read from NVMe",
        numel=lambda p: p.optimizer_buffer_count * _aligned(p, max(sizes.partitions(p), default=0)),
        dtype=lambda p: p.master_dtype,
        live=FROM_WRAPPING,
        when=_is_swapping,
        device=lambda p: Device.HOST,
        pinned=lambda p: True,
        by_deepspeed=True,
        source="runtime/swap_tensor/optimizer_utils.py:184-190",
    ),
    Entry(
        name="new_optimizer_states",
        category=Category.OPTIMIZER_STATES,
        about="states that the first step of all makes in ordinary memory, before they are on NVMe",
        numel=_new_states_numel,
        dtype=lambda p: p.master_dtype,
        live=lambda p: AFTER_FIRST_STEP if p.optimizer_pipelines else frozenset({Moment.UPDATE}),
        when=_is_swapping,
        device=lambda p: Device.HOST,
        source="runtime/swap_tensor/partitioned_optimizer_swapper.py:96-113",
    ),
    Entry(
        name="optimizer_states_not_swapped",
        category=Category.OPTIMIZER_STATES,
        about="states of the sub-groups that ratio < 1 gives to another optimizer, which the "
        "swapper does not know: they stay in ordinary memory",
        numel=lambda p: _num_states(p.optimizer) * sum(_backed_up(p)),
        dtype=lambda p: p.master_dtype,
        live=AFTER_FIRST_STEP,
        when=lambda p: _is_swapping(p) and p.optimizer_ratio < 1,
        device=lambda p: Device.HOST,
        source="runtime/zero/stage3.py:313,1249-1258; swap_tensor/optimizer_utils.py:492-500",
    ),
    Entry(
        name="backup_optimizer_temporaries",
        category=Category.TEMPORARY,
        about="what torch's AdamW materialises while it updates such a sub-group on the host, "
        "beyond what other sub-groups' new states take later",
        numel=lambda p: max(2 * max(_backed_up(p), default=0) - _new_states_numel(p), 0),
        dtype=lambda p: p.master_dtype,
        live=frozenset({Moment.UPDATE}),
        when=lambda p: _is_swapping(p) and p.optimizer_ratio < 1,
        device=lambda p: Device.HOST,
        source="runtime/zero/stage3.py:313; torch/optim/adam.py:_single_tensor_adam",
    ),
    Entry(
        name="optimizer_swap_files",
        category=Category.OPTIMIZER_STATES,
        about="master weights, states and gradients of swapped sub-groups, on NVMe",
        numel=_in_files,
        dtype=lambda p: p.master_dtype,
        live=FROM_WRAPPING,
        when=_is_swapping,
        device=lambda p: Device.NVME,
        source="runtime/swap_tensor/partitioned_optimizer_swapper.py",
    ),
)
