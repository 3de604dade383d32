"""Optimizer states: what they are called, how large they are and when they come."""

from collections.abc import Callable

from zero_sizer.hardware.device import Device
from zero_sizer.ledger.entries.conditions import (
    PER_TENSOR,
    STEPS_AT_INIT,
    resident,
    resident_on,
    updated_on,
)
from zero_sizer.ledger.moments import AFTER_FIRST_STEP, FROM_WRAPPING, Moment
from zero_sizer.models.spec import Tensor
from zero_sizer.optimizers.table import StateType
from zero_sizer.plan import sizes
from zero_sizer.plan.plan import Plan
from zero_sizer.units import DType, ceil_div, num_bytes
from zero_sizer.zero.wrapper import Wrapper

STATES = {
    StateType.MASTER: (
        *("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "sum", "momentum_buffer", "square_avg"),
        *("grad_avg", "exp_inf", "acc_delta", "ax", "prev", "step_size", "z"),
    ),
    StateType.MOMENTS: ("exp_avg", "exp_avg_sq"),
    StateType.CODES: ("state1", "state1_slow", "state2"),
    StateType.STATISTICS: ("state1_absmax", "state1_slow_absmax", "state2_absmax"),
    StateType.UNQUANTIZED: (
        *("state1_unquantized", "state1_slow_unquantized", "state2_unquantized"),
    ),
    StateType.FP32: ("state1", "state1_slow", "state2"),
    StateType.BLOCK_CODES: ("exp_avg_codes", "exp_avg_sq_codes"),
    StateType.HALF_CODES: ("exp_avg_codes", "exp_avg_sq_codes"),
    StateType.BLOCK_SCALES: ("exp_avg_scale", "exp_avg_sq_scale"),
    StateType.HALF_SCALES: ("exp_avg_scale", "exp_avg_sq_scale"),
    StateType.UNBLOCKED: ("exp_avg_whole", "exp_avg_sq_whole"),
    StateType.HOST_COPY: ("exp_avg", "exp_avg_sq", "grok_ema"),
    StateType.FACTORED: ("variance", "exp_avg_sq"),
}
"""What optimizers call their states (Muon's momentum has entries of its own)."""
DTYPES: dict[StateType, Callable[[Plan], DType]] = {
    StateType.MASTER: lambda p: p.master_dtype,
    StateType.MOMENTS: lambda p: p.moments_dtype,
    StateType.CODES: lambda p: DType.UINT8,
    StateType.STATISTICS: lambda p: DType.FP32,
    StateType.UNQUANTIZED: lambda p: DType.FP32,
    StateType.FP32: lambda p: DType.FP32,
    StateType.FACTORED: lambda p: p.master_dtype,
    StateType.BLOCK_CODES: lambda p: DType.UINT8,
    StateType.HALF_CODES: lambda p: DType.UINT8,
    StateType.BLOCK_SCALES: lambda p: DType.FP32,
    StateType.HALF_SCALES: lambda p: DType.FP32,
    StateType.UNBLOCKED: lambda p: p.master_dtype,
    StateType.HOST_COPY: lambda p: DType.FP32,
}


_SMALLEST_QUANTIZED = 4096  # elements, from which bitsandbytes and torchao keep 8 bits
_BLOCK = 256  # elements that share one statistic, or scale
_TABLE, _HALF_TABLE = 256, 16  # values that torchao's codes of 8 and 4 bits stand for
_SMALLEST_PAGED = 100_000  # elements, from which a paged state lies in unified memory
_OF_QUANTIZED: dict[StateType, Callable[[int], int]] = {
    StateType.CODES: lambda n: n if n >= _SMALLEST_QUANTIZED else 0,
    StateType.STATISTICS: lambda n: ceil_div(n, _BLOCK) if n >= _SMALLEST_QUANTIZED else 0,
    StateType.UNQUANTIZED: lambda n: n if n < _SMALLEST_QUANTIZED else 0,
    StateType.BLOCK_CODES: lambda n: n if _is_blocked(n) else 0,
    StateType.HALF_CODES: lambda n: n // 2 if _is_blocked(n) else 0,
    StateType.BLOCK_SCALES: lambda n: n // _BLOCK + _TABLE if _is_blocked(n) else 0,
    StateType.HALF_SCALES: lambda n: n // _BLOCK + _HALF_TABLE if _is_blocked(n) else 0,
    StateType.UNBLOCKED: lambda n: 0 if _is_blocked(n) else n,
}
_PAGED = (StateType.CODES, StateType.UNQUANTIZED, StateType.FP32)  # by get_state_buffer


def _is_blocked(numel: int) -> bool:
    """True if torchao quantizes the states of a tensor: large, and of whole blocks."""
    return numel >= _SMALLEST_QUANTIZED and numel % _BLOCK == 0


def state_numels(plan: Plan, state: str, kind: StateType, device: Device) -> int:
    """Elements of one state on a device."""
    whole = _of_one_device(plan, state, kind)
    if whole is not None:
        return whole.get(device, 0)
    rows = zip(resident(plan), sizes.partition_optimizers(plan), updated_on(plan), strict=True)
    kinds = plan.group_optimizers
    if len(kinds) == 1 and kind not in _OF_QUANTIZED and not kinds[0].paged:
        return resident_on(plan).get(device, 0) if kinds[0].states.get(state) is kind else 0
    total = 0
    for i, (n, row, home) in enumerate(rows):
        if row.states.get(state) is not kind or not n:
            continue
        if kind not in _OF_QUANTIZED and not row.paged:
            total += n if home is device else 0
            continue
        for numel in _handed(plan, i, n):
            is_paged = row.paged and kind in _PAGED and numel >= _SMALLEST_PAGED
            if (Device.HOST if is_paged else home) is device:
                total += quantized_numel(kind, numel)
    return total


def _of_one_device(plan: Plan, state: str, kind: StateType) -> dict[Device, int] | None:
    """States that lie in one place wherever parameters do, or have a shape of their own."""
    if kind is StateType.FACTORED and plan.wrapper in PER_TENSOR:
        return {Device.GPU: _factored_numel(plan, state)}
    if kind is StateType.HOST_COPY:
        return {Device.HOST: sum(resident(plan))}
    return None


def quantized_numel(kind: StateType, numel: int) -> int:
    """Elements of a state of a tensor where its size decides; of another kind, all of them."""
    return _OF_QUANTIZED[kind](numel) if kind in _OF_QUANTIZED else numel


def _handed(plan: Plan, index: int, numel: int) -> tuple[int, ...]:
    """Tensors that the optimizer holds of a partition: its own, or mostly all of it as one."""
    if plan.wrapper in PER_TENSOR:
        return tuple(plan.model.parameters[i].numel for i in plan.group_indices[index])
    return (numel,)


def has_state(plan: Plan, state: str, kind: StateType) -> bool:
    """Some group's optimizer keeps it, in this type."""
    return any(row.states.get(state) is kind for row in plan.group_optimizers)


def _factored(tensor: Tensor) -> int:
    if not tensor.is_matrix:
        return tensor.numel
    return tensor.numel // tensor.shape[-1] + tensor.numel // tensor.shape[-2]


def _factored_numel(plan: Plan, state: str) -> int:
    """Rows and columns of every matrix, all of every vector (torch/optim/_adafactor.py)."""
    return sum(
        _factored(plan.model.parameters[i])
        for group, row in zip(plan.group_indices, plan.group_optimizers, strict=True)
        if row.states.get(state) is StateType.FACTORED
        for i in group
    )


def states_live(plan: Plan) -> frozenset[Moment]:
    """From the first step on, or since init where the wrapper or the optimizer makes them then.

    The 16-bit wrappers run a step at once; Adagrad makes its states when it is made. ZeRO makes it
    anew for the master weights, BF16_Optimizer does not.
    """
    at_once = plan.optimizer.states_at_init and plan.wrapper is not Wrapper.BF16
    return FROM_WRAPPING if at_once or plan.wrapper in STEPS_AT_INIT else AFTER_FIRST_STEP


def from_first_step(plan: Plan, device: Device = Device.GPU) -> int:
    """Bytes of states on a device that the first step of all makes."""
    if states_live(plan) != AFTER_FIRST_STEP:
        return 0
    momentum = _offloaded_momentum(plan) if device is Device.HOST else 0
    return momentum + sum(
        num_bytes(state_numels(plan, state, kind, device), dtype(plan))
        for kind, dtype in DTYPES.items()
        for state in STATES[kind]
        if has_state(plan, state, kind)
    )


def _offloaded_momentum(plan: Plan) -> int:
    """Bytes of Muon's momentum on the host at ZeRO-1 and ZeRO-2 (stage_1_and_2.py:2072-2085)."""
    if plan.wrapper is not Wrapper.ZERO12 or not plan.offloads_optimizer:
        return 0
    rows = zip(sizes.partitions(plan), sizes.partition_optimizers(plan), strict=True)
    return num_bytes(sum(numel for numel, row in rows if row.newton_schulz), plan.master_dtype)
