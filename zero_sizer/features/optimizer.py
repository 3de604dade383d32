"""What the optimizer owns: master weights, state tensors, and the temporaries of its step."""

from collections.abc import Callable, Iterator

from zero_sizer.features.conditions import is_swapped
from zero_sizer.ledger import Category, Entry
from zero_sizer.moments import AFTER_FIRST_STEP, ALWAYS, FROM_LINKING, FROM_WRAPPING, Moment
from zero_sizer.optimizers import StateType
from zero_sizer.plan import Device, Plan
from zero_sizer.units import DType
from zero_sizer.zero.wrapper import Wrapper

_STATES = (
    *("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "sum", "momentum_buffer", "square_avg"),
    *("grad_avg", "state1", "state2"),
)
_DTYPES: dict[StateType, Callable[[Plan], DType]] = {
    StateType.FP32: lambda p: DType.FP32,
    StateType.MOMENTS: lambda p: p.moments_dtype,
    StateType.INT8: lambda p: DType.INT8,
}


def _with_master(plan: Plan) -> bool:
    return plan.wrapper is not Wrapper.NONE


def _on_host(plan: Plan, index: int) -> bool:
    """Whether partition ``index`` is updated on the host (``ratio``: stage3.py:1099-1108)."""
    if not plan.offloads_optimizer:
        return False
    return plan.stage < 3 or index >= int((1 - plan.optimizer_ratio) * len(plan.partitions))


def _resident(plan: Plan, device: Device) -> tuple[int, ...]:
    """Partitions whose master and states stay on ``device``, in elements."""
    return tuple(
        0 if is_swapped(plan, n) else n
        for i, n in enumerate(plan.partitions)
        if _on_host(plan, i) == (device is Device.HOST)
    )


def _state_numels(plan: Plan, state: str, kind: StateType, device: Device) -> int:
    return sum(
        n
        for i, (n, row) in enumerate(zip(plan.partitions, plan.partition_optimizers, strict=True))
        if row.states.get(state) is kind
        and _on_host(plan, i) == (device is Device.HOST)
        and not is_swapped(plan, n)
    )


def _numel_of(state: str, kind: StateType, device: Device) -> Callable[[Plan], int]:
    return lambda plan: _state_numels(plan, state, kind, device)


def _states(device: Device) -> Iterator[Entry]:
    for state in _STATES:
        for kind, dtype in _DTYPES.items():
            yield Entry(
                name=state,
                category=Category.OPTIMIZER_STATES,
                about="optimizer state, one element per owned parameter",
                numel=_numel_of(state, kind, device),
                dtype=dtype,
                live=_states_live,
                device=lambda p: device,
                source="the optimizer's class; created at the first step",
            )


def _states_live(plan: Plan) -> frozenset[Moment]:
    if plan.wrapper in (Wrapper.FP16_FUSED, Wrapper.FP16_UNFUSED):
        return FROM_WRAPPING  # initialize_optimizer_states runs a step at once
    return FROM_LINKING if plan.optimizer.states_at_init else AFTER_FIRST_STEP


def _master(device: Device) -> Entry:
    return Entry(
        name="fp32_partitioned_groups_flat" if device is Device.HOST else "master_weights",
        category=Category.MASTER_WEIGHTS,
        about="the optimizer's own copy of the weights it updates",
        numel=lambda p: _resident(p, device),
        dtype=lambda p: p.master_dtype,
        live=FROM_WRAPPING,
        when=_with_master,
        device=lambda p: device,
        # stage 3 clones the converted weights: pageable even with pin_memory
        pinned=lambda p: device is Device.HOST and p.optimizer_pinned and p.stage < 3,
        source="runtime/zero/stage_1_and_2.py:558-576, runtime/zero/stage3.py:1157-1172, "
        "runtime/fp16/fused_optimizer.py:99, runtime/bf16_optimizer.py:152-237",
    )


def _largest_update(plan: Plan) -> int:
    """Elements of the fp32 temporaries while one partition is updated on the GPU."""
    return max(
        (
            row.step_copies * (_largest_tensor(plan, i) if row.is_loop else n)
            for i, (n, row) in enumerate(
                zip(plan.partitions, plan.partition_optimizers, strict=True)
            )
            if not _on_host(plan, i)
        ),
        default=0,
    )


def _largest_host_update(plan: Plan) -> int:
    """The same on the host, where torch's optimizers take their for-loop."""
    return max(
        (
            row.host_copies * n
            for i, (n, row) in enumerate(
                zip(plan.partitions, plan.partition_optimizers, strict=True)
            )
            if _on_host(plan, i)
        ),
        default=0,
    )


def _largest_tensor(plan: Plan, index: int) -> int:
    """Elements of the largest tensor that the optimizer holds of a partition: mostly all of it."""
    if plan.wrapper in (Wrapper.NONE, Wrapper.FP16_UNFUSED):
        return max(plan.groups[index], default=0)
    return plan.partitions[index]


def _num_step_tensors(plan: Plan) -> int:
    per_tensor = plan.wrapper in (Wrapper.NONE, Wrapper.FP16_UNFUSED)
    counts = [len(g) for g in plan.groups] if per_tensor else [1] * len(plan.partitions)
    rows = plan.group_optimizers if per_tensor else plan.partition_optimizers
    # FP16_UnfusedOptimizer replaces the parameters, but not what was made for the old ones
    copies = 2 if plan.wrapper is Wrapper.FP16_UNFUSED and plan.optimizer.states_at_init else 1
    return copies * sum(c for c, row in zip(counts, rows, strict=True) if row.has_step_tensor)


ENTRIES = (
    _master(Device.GPU),
    _master(Device.HOST),
    *_states(Device.GPU),
    *_states(Device.HOST),
    Entry(
        name="optimizer_step_counters",
        category=Category.OPTIMIZER_STATES,
        about="torch optimizers keep one 4-byte step per tensor, in host memory unless fused",
        numel=_num_step_tensors,
        dtype=lambda p: DType.FP32,
        live=_states_live,
        device=lambda p: Device.HOST,
        source="torch/optim/adam.py:_init_group",
    ),
    Entry(
        name="states_of_replaced_parameters",
        category=Category.OPTIMIZER_STATES,
        about="states made for the 16-bit tensors before fp32 copies took their place",
        numel=lambda p: p.num_trainable,
        dtype=lambda p: p.model_dtype,
        live=ALWAYS,
        when=lambda p: p.wrapper is Wrapper.FP16_UNFUSED and p.optimizer.states_at_init,
        source="runtime/fp16/unfused_optimizer.py:66-90",
    ),
    Entry(
        name="optimizer_update_temporaries",
        category=Category.TEMPORARY,
        about="what the optimizer's loop materialises while it updates one partition",
        numel=_largest_update,
        dtype=lambda p: DType.FP32,
        live=frozenset({Moment.UPDATE}),
        source="torch/optim/adam.py:_multi_tensor_adam",
    ),
    Entry(
        name="optimizer_update_temporaries_on_host",
        category=Category.TEMPORARY,
        about="what a torch optimizer's for-loop materialises while it updates one partition",
        numel=_largest_host_update,
        dtype=lambda p: DType.FP32,
        live=frozenset({Moment.UPDATE}),
        device=lambda p: Device.HOST,
        source="torch/optim/adam.py:_single_tensor_adam; torch/utils/_foreach_utils.py: a host "
        "has no foreach kernels",
    ),
    Entry(
        name="zero_gradient_at_init",
        category=Category.TEMPORARY,
        about="a gradient of zeros, allocated to initialise the optimizer and dropped",
        numel=lambda p: max(p.partitions, default=0) if p.stage else p.partition_numel,
        dtype=lambda p: p.master_dtype,
        live=frozenset({Moment.WRAPPING}),
        when=lambda p: (
            _with_master(p) and p.wrapper is not Wrapper.BF16 and not p.offloads_optimizer
        ),
        source="runtime/zero/stage_1_and_2.py:934-953, runtime/zero/stage3.py:1304-1306, "
        "runtime/fp16/fused_optimizer.py:113-126",
    ),
    Entry(
        name="zero_gradient_of_weights_at_init",
        category=Category.TEMPORARY,
        about="gradients of zeros of the 16-bit weights, beside those of their fp32 copies",
        numel=lambda p: p.num_trainable,
        dtype=lambda p: p.model_dtype,
        live=frozenset({Moment.WRAPPING}),
        when=lambda p: p.wrapper is Wrapper.FP16_UNFUSED,
        source="runtime/fp16/unfused_optimizer.py:412-430",
    ),
)
