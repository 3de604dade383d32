"""Optimizer states: master weights and state tensors."""

from collections.abc import Callable, Iterator

from zero_sizer.hardware.device import Device
from zero_sizer.ledger.entries.conditions import (
    PER_TENSOR,
    has_master,
    resident,
    updated_on,
)
from zero_sizer.ledger.entries.states import (
    DTYPES,
    STATES,
    has_state,
    state_numels,
    states_live,
)
from zero_sizer.ledger.entry import Category, Entry
from zero_sizer.ledger.moments import ALWAYS, FROM_WRAPPING, Moment
from zero_sizer.optimizers.table import StateType
from zero_sizer.plan import sizes
from zero_sizer.plan.plan import Plan
from zero_sizer.units import DType
from zero_sizer.zero.wrapper import Wrapper


def _resident(plan: Plan, device: Device) -> tuple[int, ...]:
    """Partitions whose master and states stay on ``device``, in elements."""
    found = zip(resident(plan), updated_on(plan), strict=True)
    return tuple([numel for numel, where in found if where is device])


def _numel_of(state: str, kind: StateType, device: Device) -> Callable[[Plan], int]:
    return lambda plan: state_numels(plan, state, kind, device)


def _keeps(state: str, kind: StateType) -> Callable[[Plan], bool]:
    return lambda plan: has_state(plan, state, kind)


def _states(device: Device) -> Iterator[Entry]:
    for kind, dtype in DTYPES.items():
        for state in STATES[kind]:
            yield Entry(
                name=state,
                category=Category.OPTIMIZER_STATES,
                about="optimizer state, one element per owned parameter",
                numel=_numel_of(state, kind, device),
                dtype=dtype,
                live=states_live,
                when=_keeps(state, kind),
                device=lambda p: device,
                source="the optimizer's class; created at the first step",
            )


def _master(device: Device) -> Entry:
    return Entry(
        name="fp32_partitioned_groups_flat" if device is Device.HOST else "master_weights",
        category=Category.MASTER_WEIGHTS,
        about="the optimizer's own copy of the weights it updates",
        numel=lambda p: _resident(p, device),
        dtype=lambda p: p.master_dtype,
        live=FROM_WRAPPING,
        when=has_master,
        device=lambda p: device,
        # stage 3 clones the converted weights: pageable even with pin_memory
        pinned=lambda p: device is Device.HOST and p.optimizer_pinned and p.stage < 3,
        source="runtime/zero/stage_1_and_2.py:558-576, runtime/zero/stage3.py:1157-1172, "
        "runtime/fp16/fused_optimizer.py:99, runtime/bf16_optimizer.py:152-237",
    )


def _always(device: Device) -> Callable[[Plan], Device]:
    return lambda plan: device


def _counters(device: Device, *, beside: bool) -> Callable[[Plan], int]:
    """Counters that lie on ``device`` with their parameter, or on the host wherever that is."""

    def numel(plan: Plan) -> int:
        per_tensor = plan.wrapper in PER_TENSOR
        return sum(
            row.counters * (len(sizes.groups(plan)[i]) if per_tensor else 1)
            for i, (row, where) in enumerate(
                zip(sizes.partition_optimizers(plan), updated_on(plan), strict=True)
            )
            if row.counters_beside is beside and (not beside or where is device)
        )

    return numel


def _is_replaced(plan: Plan) -> bool:
    """States were made for tensors in whose place the wrapper puts others."""
    return plan.wrapper is not Wrapper.NONE and plan.optimizer.states_at_init


def _replaced_on(plan: Plan) -> Device:
    """A client makes its optimizer before the model is moved to the GPU."""
    under_init = plan.wrapper is Wrapper.ZERO3 and plan.zero_init
    return Device.HOST if plan.optimizer.by_client and not under_init else Device.GPU


def _num_tables(plan: Plan) -> int:
    """States of 8 bits, each of which has a table that its codes index; two averages share one."""
    states = {s for row in plan.group_optimizers for s in row.states.items()}
    coded = {name.removesuffix("_slow") for name, kind in states if kind is StateType.CODES}
    return len(coded)


def _copies_states(plan: Plan) -> bool:
    """States that wait on the host are copied to the GPU, one tensor's at a time, and back."""
    kept = (kind for row in plan.group_optimizers for kind in row.states.values())
    return StateType.HOST_COPY in kept and not plan.offloads_optimizer


def _replaced_numel(plan: Plan) -> int:
    """Under zero.Init the tensors are empty by then."""
    return 0 if plan.wrapper is Wrapper.ZERO3 and plan.zero_init else sizes.num_trainable(plan)


_TABLE = 256  # entries, of 8 bits
ENTRIES = (
    _master(Device.GPU),
    _master(Device.HOST),
    *_states(Device.GPU),
    *_states(Device.HOST),
    *(
        Entry(
            name=f"optimizer_step_counters{where}",
            category=Category.OPTIMIZER_STATES,
            about="torch's optimizers count steps in 4-byte tensors, on the host unless fused",
            numel=_counters(device, beside=beside),
            dtype=lambda p: DType.FP32,
            live=states_live,
            device=_always(device),
            source="torch/optim/adam.py:_init_group",
        )
        for where, device, beside in (
            ("", Device.HOST, False),
            ("_on_gpu", Device.GPU, True),
            ("_beside", Device.HOST, True),
        )
    ),
    Entry(
        name="state_on_its_way_back",
        category=Category.OPTIMIZER_STATES,
        about="a state copied back to the host, beside the one in whose place it comes",
        numel=lambda p: max(resident(p), default=0),
        dtype=lambda p: DType.FP32,
        live=frozenset({Moment.UPDATE}),
        when=_copies_states,
        device=lambda p: Device.HOST,
        source="grokadamw 0.1.2 grokadamw.py:GrokAdamW._update_group",
    ),
    Entry(
        name="quantization_tables",
        category=Category.OPTIMIZER_STATES,
        about="values that the codes of 8-bit states stand for",
        numel=lambda p: tuple([_TABLE] * _num_tables(p)),
        dtype=lambda p: DType.FP32,
        live=states_live,
        when=lambda p: _num_tables(p) > 0,
        source="bitsandbytes/functional.py:create_dynamic_map",
    ),
    Entry(
        name="states_of_replaced_parameters",
        category=Category.OPTIMIZER_STATES,
        about="states made for the model's tensors, before the wrapper put others in their place",
        numel=_replaced_numel,
        dtype=sizes.trained_dtype,
        live=ALWAYS,
        when=_is_replaced,
        device=_replaced_on,
        source="torch/optim/adagrad.py:__init__, runtime/fp16/unfused_optimizer.py:66-90, "
        "runtime/zero/stage_1_and_2.py:944-947, runtime/zero/stage3.py:1358",
    ),
    Entry(
        name="counters_of_replaced_parameters",
        category=Category.OPTIMIZER_STATES,
        about="step counters of those",
        numel=lambda p: p.optimizer.counters * sum(len(g) for g in sizes.groups(p)),
        dtype=lambda p: DType.FP32,
        live=ALWAYS,
        when=_is_replaced,
        device=lambda p: Device.GPU if p.optimizer.counters_beside else Device.HOST,
        source="torch/optim/adagrad.py:__init__",
    ),
)
