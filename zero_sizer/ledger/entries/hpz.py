"""hpZ: a second partition of every parameter, inside a group of ranks.

What forward and backward make on the GPU as they release parameters is in ``gathered_parameters``;
the entries here are what is there before and after.
"""

from collections.abc import Callable, Iterable
from functools import lru_cache

from zero_sizer.hardware.device import Device
from zero_sizer.ledger.entries.conditions import is_zero3
from zero_sizer.ledger.entries.states import from_first_step
from zero_sizer.ledger.entry import Category, Entry
from zero_sizer.ledger.moments import ALWAYS, FROM_FLATTEN, STEP, Moment, Phase
from zero_sizer.plan import sizes
from zero_sizer.plan.parallel import hpz_ranks
from zero_sizer.plan.plan import Plan
from zero_sizer.timeline.compose import (
    Totals,
    first_step_of,
    places_of,
    timeline_of,
)
from zero_sizer.timeline.micro_steps import zero_after_step, zero_at_first
from zero_sizer.timeline.overlay import Zero, secondaries_made
from zero_sizer.units import DType, next_power_of_two, num_bytes
from zero_sizer.util.identity import Identity
from zero_sizer.zero import construction
from zero_sizer.zero.secondary import numels

_INIT = frozenset(m for m in Moment if m.phase is Phase.INIT)


def _is_on(plan: Plan) -> bool:
    return is_zero3(plan) and plan.hpz_partition_size > 1


def _sizes(plan: Plan, tensors: Iterable[int]) -> tuple[int, ...]:
    return numels(tensors, plan.dp_world_size, hpz_ranks(plan))


def _parked(plan: Plan) -> bool:
    return plan.param_device is not Device.GPU


def _made(plan: Plan, *, in_forward: bool) -> tuple[int, ...]:
    """Trained tensors that are not persistent, in the order in which they are cut: elements.

    In forward of the first micro step, or all; the last is cut as the step begins.
    """
    layout, zero = Identity(places_of(plan)), Identity(zero_after_step(plan))
    return _numels_made(layout, zero, in_forward, plan.dp_world_size, hpz_ranks(plan))


@lru_cache(maxsize=1024)
def _numels_made(
    layout: Identity, zero: Identity, in_forward: bool, ranks: int, group: int
) -> tuple[int, ...]:
    groups, of = zero.of.tensors.groups, zero.of.tensors.numels
    made = secondaries_made(layout.of, zero.of, in_forward=in_forward)
    waiting = () if in_forward else _not_persistent(zero.of.persistent, groups)
    return numels([of[i] for i in dict.fromkeys((*made, *waiting))], ranks, group)


@lru_cache(maxsize=256)
def _not_persistent(
    persistent: tuple[bool, ...], groups: tuple[tuple[int, ...], ...]
) -> tuple[int, ...]:
    return tuple([i for group in groups for i in group if not persistent[i]])


def _kept(plan: Plan, *, in_forward: bool) -> tuple[int, ...]:
    return _made(plan, in_forward=in_forward and not plan.accumulates)


def _kept_numel(plan: Plan, *, in_forward: bool) -> int | tuple[int, ...]:
    """One number where no request is rounded up on its own."""
    kept = _kept(plan, in_forward=in_forward)
    return kept if _parked(plan) else _sum(Identity(kept))


@lru_cache(maxsize=1024)
def _sum(numels: Identity) -> int:
    """Elements of all; every batch asks for the same."""
    return sum(numels.of)


def _unpinned(plan: Plan, *, in_forward: bool) -> int:
    """Bytes by which the first micro step, which pins them, is higher than the last."""
    before = 0 if in_forward else len(_made(plan, in_forward=True))
    dtype = sizes.trained_dtype(plan)
    made = [num_bytes(numel, dtype) for numel in _made(plan, in_forward=in_forward)]
    kept = (num_bytes(numel, dtype) for numel in _kept(plan, in_forward=in_forward))
    if not made[before:]:
        return 0
    there = sum(map(next_power_of_two, made[:before]))
    most = there + construction.most_being_pinned(made[before:])
    return max(most - sum(map(next_power_of_two, kept)), 0)


def highest_step(first: int, later: int, missing: int) -> int:
    """Bytes of the higher of the first step of all and later ones, beside all that lasts.

    ``missing`` are the states that the first step makes: it is without them.
    """
    return max(first - missing, later)


def first_of(plan: Plan) -> tuple[Zero, ...]:
    """ZeRO's holdings in the first micro step of all, where hpZ makes it another."""
    return (zero_at_first(plan),) if _is_on(plan) else ()


def with_first(first: Totals, later: Totals, missing: int) -> Totals:
    """Highest points of forward and backward, in the first step of all too."""
    forward, backward = (highest_step(*pair, missing) for pair in zip(first, later, strict=True))
    return forward, backward


def _beyond_later(plan: Plan, *, in_forward: bool) -> int:
    """Bytes by which the first step of all is higher than later ones."""
    first, later = first_step_of(plan), timeline_of(plan)
    missing = from_first_step(plan)
    at_first, at_later = (t.forward if in_forward else t.backward for t in (first, later))
    return highest_step(at_first.total, at_later.total, missing) - at_later.total


def _of_trained(
    name: str,
    about: str,
    live: Callable[[Plan], frozenset[Moment]],
    *,
    numel: Callable[[Plan], int | tuple[int, ...]] = lambda p: _sizes(p, sizes.trainable(p)),
    category: Category = Category.PARAMETERS,
    when: Callable[[Plan], bool] = lambda p: True,
) -> Entry:
    return Entry(
        name=name,
        category=category,
        about=about,
        numel=numel,
        dtype=sizes.trained_dtype,
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
        numel=lambda p: _sizes(p, sizes.frozen_codes(p) if codes else sizes.frozen(p)),
        dtype=(lambda p: DType.UINT8) if codes else (lambda p: p.model_dtype),
        live=lambda p: ALWAYS if p.zero_init else FROM_FLATTEN,
        when=_is_on,
        device=lambda p: p.param_device,
        pinned=lambda p: p.param_device is Device.HOST and p.param_pinned,
        source="runtime/zero/partition_parameters.py:1900-1929, runtime/zero/stage3.py:755-759",
    )


def _in_pass(moment: Moment) -> tuple[Entry, ...]:
    """Beside the timeline: what is there before, and what is made on the host."""
    in_forward = moment is Moment.FORWARD
    return (
        _of_trained(
            f"hpz_secondary_partition_in_{moment.phase.value}",
            "those of earlier micro batches, or made on the host as weights are released",
            lambda p: frozenset({moment}),
            numel=lambda p: _kept_numel(p, in_forward=in_forward),
            when=lambda p: p.accumulates or _parked(p),
        ),
        Entry(
            name=f"hpz_secondary_being_pinned_in_{moment.phase.value}",
            category=Category.TEMPORARY,
            about="the ordinary tensor whose pinned copy is a secondary partition",
            numel=lambda p: _unpinned(p, in_forward=in_forward),
            dtype=lambda p: DType.UINT8,  # counted in bytes: pinned ones are rounded up
            live=frozenset({moment}),
            when=lambda p: _is_on(p) and _parked(p) and p.param_pinned,
            device=lambda p: Device.HOST,
            source="runtime/zero/partition_parameters.py:1915-1920",
        ),
    )


def _from_init(moment: Moment) -> Entry:
    in_forward = moment is Moment.FORWARD
    return Entry(
        name=f"hpz_secondary_partition_from_init_in_{moment.phase.value}",
        category=Category.PARAMETERS,
        about="by which the first step is higher: all of them are there since init, "
        "and no optimizer states yet",
        numel=lambda p: _beyond_later(p, in_forward=in_forward),
        dtype=lambda p: DType.UINT8,  # counted in bytes: what is gathered differs, too
        live=frozenset({moment}),
        when=_is_on,
        source="runtime/zero/partition_parameters.py:1900-1929, runtime/zero/stage3.py:2846",
    )


IN_PASSES = (_from_init(Moment.FORWARD), _from_init(Moment.BACKWARD))
"""On the GPU, from the highest points of forward and backward."""

ENTRIES = (
    _of_trained(
        "hpz_secondary_partition",
        "a second partition of every trained weight inside the group (hpZ), until the step ends",
        lambda p: STEP | (_INIT if p.zero_init else _INIT & FROM_FLATTEN),
    ),
    *_in_pass(Moment.FORWARD),
    IN_PASSES[0],
    *_in_pass(Moment.BACKWARD),
    IN_PASSES[1],
    _of_trained(
        "hpz_secondary_partition_being_dropped",
        "still there while small tensors are gathered again",
        lambda p: frozenset({Moment.DONE}),
        category=Category.TEMPORARY,
    ),
    _of_frozen("hpz_secondary_of_frozen", codes=False),
    _of_frozen("hpz_secondary_of_quantized", codes=True),
)
