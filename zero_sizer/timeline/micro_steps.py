"""Kinds of micro steps: what ZeRO holds in each, told as differences from the last of a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from zero_sizer.plan import sizes
from zero_sizer.plan.plan import Plan, derived, derived_of_rank
from zero_sizer.timeline.overlay import Zero, interned
from zero_sizer.timeline.zero_rules import frozen_of, limits_of, swapped_of, zero_of
from zero_sizer.util.identity import Identity
from zero_sizer.util.records import dataclass
from zero_sizer.zero.secondary import Secondary
from zero_sizer.zero.trace import Known


def _as_in_last(plan: Plan, secondary: Secondary) -> Secondary:
    return secondary


def _of_frozen(plan: Plan, secondary: Secondary) -> Secondary:
    return secondary._replace(made=secondary.made & frozen_of(Identity(plan.model)))


def _of_all(plan: Plan, secondary: Secondary) -> Secondary:
    everything = frozenset(range(len(sizes.numels(plan))))
    return secondary._replace(made=everything, counted=everything - secondary.made)


@dataclass(frozen=True, kw_only=True)
class MicroStepKind:
    """A kind of micro step.

    Attributes:
        known: what DeepSpeed knows of the model when it begins.
        secondary: hpZ's partitions then, from those of the last micro step.
        keeps_gradients: those that are offloaded are added up, and not cleared yet.
    """

    known: Known = Known.EVERYTHING
    secondary: Callable[[Plan, Secondary], Secondary] = _as_in_last
    keeps_gradients: bool = False


LAST = MicroStepKind()
"""The one before the optimizer steps: with accumulation, hpZ has made every partition by then."""

ACCUMULATING = MicroStepKind(keeps_gradients=True)
"""Before the last of a step."""

UNTRACED = MicroStepKind(known=Known.NOTHING)
"""In the first step of all."""

UNSTEPPED = MicroStepKind(known=Known.ORDER)
"""Later, but before the first optimizer step is over."""

AFTER_STEP = MicroStepKind(secondary=_of_frozen)
"""The first after an optimizer step, which dropped what it could of hpZ's partitions."""

FIRST = MicroStepKind(known=Known.NOTHING, secondary=_of_all)
"""The first of all with hpZ: init made every partition, and no step has dropped one."""


def zero_in(plan: Plan, kind: MicroStepKind) -> Zero:
    """ZeRO's holdings in such a micro step."""
    zero = zero_of(plan)
    if kind == LAST:
        return zero
    share = zero.share
    if kind.keeps_gradients:
        share = replace(share, offloads=False, keeps_own=(True,) * len(sizes.groups(plan)))
    return interned(
        replace(
            zero,
            limits=limits_of(plan, kind.known),
            # without modules' order, what stays is counted as if it were there
            is_first=kind.known is Known.ORDER,
            secondary=kind.secondary(plan, zero.secondary),
            swapped=swapped_of(plan, kind.known),
            share=share,
        )
    )


@derived_of_rank
def zero_after_step(plan: Plan) -> Zero:
    """``AFTER_STEP``: asked for by many entries."""
    return zero_in(plan, AFTER_STEP)


@derived_of_rank
def zero_at_first(plan: Plan) -> Zero:
    """``FIRST``: asked for by many entries."""
    return zero_in(plan, FIRST)


def zeros_of(plan: Plan) -> tuple[Zero, ...]:
    """ZeRO's holdings in the last micro step, and in earlier ones that can hold more."""
    kinds = (LAST, *_kinds_that_hold_more(plan))
    return tuple([zero_in(plan, kind) for kind in kinds])


def _kinds_that_hold_more(plan: Plan) -> Iterator[MicroStepKind]:
    """Kinds that can be higher than the last; ``FIRST`` has entries of its own (hpZ)."""
    if _keeps_gradients(plan):
        yield ACCUMULATING
    if _gathers_again(plan) or _brings_head_again(plan):
        yield UNTRACED
    if _copies_more(plan):
        yield UNSTEPPED


def _keeps_gradients(plan: Plan) -> bool:
    """True if gradients that are kept before the last micro step go in it.

    With offload they are added up, on the host or in a buffer of fp32, but not cleared before the
    last (stage_1_and_2.py:2166-2176); stage 1 reduces in the last only.
    """
    if not (plan.accumulates and plan.offloads_optimizer and zero_of(plan).rules.clones_large):
        return False
    if plan.stage != 2:
        return False
    # else nothing is kept: without the norms of the last step it is never higher
    return zero_of(plan).rules.is_large(sizes.largest_tensor(plan))


def _gathers_again(plan: Plan) -> bool:
    """True if backward refers to something by another tensor, which is gathered a second time.

    As long as nothing is kept for reuse, that comes beside it.
    """
    zero = zero_of(plan)
    if not (zero.views or zero.kept or zero.recomputed) or not zero.ranks:
        return False
    return not (zero.secondary.ranks or _holds_more_later(plan))


def _brings_head_again(plan: Plan) -> bool:
    """True if forward gathers a tied head a second time, beside what its partition is brought as.

    Later that is kept for reuse where it lies; so late in forward more activations are there.
    """
    zero = zero_of(plan)
    brings = zero.ranks > 1 and (zero.is_parked or zero.gather_itemsizes != zero.itemsizes)
    is_kept = plan.model.arch.tied_embeddings and zero.limits.max_reuse_distance > 0
    return brings and is_kept and not (zero.secondary.ranks or _holds_more_later(plan))


def _copies_more(plan: Plan) -> bool:
    """True if something is fetched ahead with one that shall stay, which lies by itself later.

    Until an optimizer step has gathered the latter, a large one is copied out of their buffer.
    """
    zero = zero_of(plan)
    is_other = zero.ranks > 1 and any(zero.persistent) and zero.limits.prefetch_bucket_size > 0
    return plan.accumulates and is_other and not _holds_more_later(plan)


def _holds_more_later(plan: Plan) -> bool:
    """True if optimizer states, made in the first step, outweigh what is gathered before it.

    They are counted in all steps; those of adapters are less than the largest frozen tensor.
    """
    if plan.offloads_optimizer:
        return False
    states = len(plan.optimizer.states) * plan.master_dtype.itemsize * sizes.partition_numel(plan)
    return states > _largest_frozen(plan)


@derived
def _largest_frozen(plan: Plan) -> int:
    """Bytes of the largest tensor that is not trained."""
    numels, itemsizes = sizes.numels(plan), sizes.itemsizes(plan)
    return max((numels[i] * itemsizes[i] for i in frozen_of(Identity(plan.model))), default=0)
