"""hpZ: a second partition of every parameter, inside a group of ranks.

What forward and backward make on the GPU as they release parameters is in ``gathered_parameters``;
the entries here are what is there before and after.
"""

from collections.abc import Callable, Iterable

from zero_sizer.features.conditions import is_zero3
from zero_sizer.ledger import Category, Entry
from zero_sizer.moments import ALWAYS, FROM_FLATTEN, STEP, Moment, Phase
from zero_sizer.passes.compose import cut_in_forward
from zero_sizer.plan import Device, Plan
from zero_sizer.units import DType
from zero_sizer.zero.secondary import group_ranks, numels

_INIT = frozenset(m for m in Moment if m.phase is Phase.INIT)


def _is_on(plan: Plan) -> bool:
    return is_zero3(plan) and plan.hpz_partition_size > 1


def _group(plan: Plan) -> int:
    return group_ranks(plan.hpz_partition_size, plan.dp_world_size)


def _sizes(plan: Plan, tensors: Iterable[int]) -> tuple[int, ...]:
    return numels(tensors, plan.dp_world_size, _group(plan))


def _cut(plan: Plan, which: frozenset[int] | None = None) -> tuple[int, ...]:
    """Of the trained tensors that are not persistent, or of those among ``which``."""
    trained = (i for group in plan.group_indices for i in group)
    found = (i for i in trained if not plan.is_persistent[i] and (which is None or i in which))
    return _sizes(plan, [plan.numels[i] for i in found])


def _in_forward(plan: Plan) -> tuple[int, ...]:
    return _cut(plan, None if plan.accumulates else cut_in_forward(plan))


def _parked(plan: Plan) -> bool:
    return plan.param_device is not Device.GPU


def _of_trained(
    name: str,
    about: str,
    live: Callable[[Plan], frozenset[Moment]],
    *,
    numel: Callable[[Plan], tuple[int, ...]] = lambda p: _sizes(p, p.trainable),
    category: Category = Category.PARAMETERS,
    when: Callable[[Plan], bool] = lambda p: True,
) -> Entry:
    return Entry(
        name=name,
        category=category,
        about=about,
        numel=numel,
        dtype=lambda p: p.trained_dtype,
        live=live,
        when=lambda p: _is_on(p) and when(p),
        device=lambda p: p.param_device,
        pinned=lambda p: p.param_device is Device.HOST and p.param_pinned,
        source="runtime/zero/partition_parameters.py:1900-1929, runtime/zero/stage3.py:2846",
    )


def _of_frozen(name: str, codes: bool) -> Entry:
    return Entry(
        name=name,
        category=Category.PARAMETERS,
        about="a second partition of every frozen weight inside the group (hpZ), never dropped",
        numel=lambda p: _sizes(p, p.frozen_codes if codes else p.frozen),
        dtype=(lambda p: DType.UINT8) if codes else (lambda p: p.model_dtype),
        live=lambda p: ALWAYS if p.zero_init else FROM_FLATTEN,
        when=_is_on,
        device=lambda p: p.param_device,
        pinned=lambda p: p.param_device is Device.HOST and p.param_pinned,
        source="runtime/zero/partition_parameters.py:1900-1929, runtime/zero/stage3.py:755-759",
    )


ENTRIES = (
    _of_trained(
        "hpz_secondary_partition",
        "a second partition of every trained weight inside the group (hpZ), until the step ends",
        lambda p: STEP | (_INIT if p.zero_init else _INIT & FROM_FLATTEN),
    ),
    _of_trained(
        "hpz_secondary_partition_in_forward",
        "those of earlier micro steps, or made on the host as forward releases weights",
        lambda p: frozenset({Moment.FORWARD}),
        numel=_in_forward,
        when=lambda p: p.accumulates or _parked(p),
    ),
    _of_trained(
        "hpz_secondary_partition_in_backward",
        "those of earlier micro steps, or made on the host",
        lambda p: frozenset({Moment.BACKWARD}),
        numel=_cut,
        when=lambda p: p.accumulates or _parked(p),
    ),
    _of_trained(
        "hpz_secondary_partition_being_dropped",
        "still there while small tensors are gathered again",
        lambda p: frozenset({Moment.DONE}),
        category=Category.TEMPORARY,
    ),
    _of_frozen("hpz_secondary_of_frozen", codes=False),
    _of_frozen("hpz_secondary_of_quantized", codes=True),
)
