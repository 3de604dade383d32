"""From a plan to its timeline: which variant of the profile, which rules of reduction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from zero_sizer.activations import loss, select
from zero_sizer.activations.select import knows_loss
from zero_sizer.config import workload
from zero_sizer.plan.plan import Plan, derived, derived_of_rank
from zero_sizer.timeline import peaks
from zero_sizer.timeline.blocks import BlockPeak, block_peaks
from zero_sizer.timeline.micro_steps import zero_at_first, zeros_of
from zero_sizer.timeline.overlay import Overlay, Zero, interned, overlay_of
from zero_sizer.timeline.peaks import Instant, Rows, Timeline, highest_totals, timeline
from zero_sizer.timeline.places import layout_of
from zero_sizer.timeline.program import Layout
from zero_sizer.timeline.reduction_rules import cuts_bucket, owns_of
from zero_sizer.timeline.zero_rules import leaves_of, zero_of

if TYPE_CHECKING:
    from collections.abc import Sequence


Totals = tuple[int, int]
"""Bytes of the highest points of forward and of backward."""


@derived_of_rank
def timeline_of(plan: Plan) -> Timeline:
    """The highest points of forward and backward."""
    found = [one for _, one in _timelines(plan)]
    return Timeline(
        forward=max((one.forward for one in found), key=lambda at: at.total),
        backward=max((one.backward for one in found), key=lambda at: at.total),
    )


def end_of_forward(plan: Plan) -> Instant:
    """The instant at which the forward of the last micro step of a step has returned."""
    return peaks.end_of_forward(select.activations_of(plan), places_of(plan), zero_of(plan))


@derived
def rows_of(plan: Plan) -> Rows:
    """Activations of a micro step, highest first."""
    return peaks.rows_of(select.activations_of(plan))


def micro_step_of(plan: Plan) -> tuple[Rows, Layout]:
    """Activations of a micro step, and the places at which they lie."""
    return rows_of(plan), places_of(plan)


def overlays_of(layout: Layout, zeros: Iterable[Zero]) -> tuple[Overlay, ...]:
    """Bytes that ZeRO holds at these places in some micro steps."""
    return tuple([overlay_of(layout, zero) for zero in zeros])


def highest_of(rows: Rows, overlays: Iterable[Overlay], gap: int | None = None) -> Totals:
    """Bytes of the highest points beside what ZeRO holds in some micro steps.

    ``gap``: see ``peaks.highest_totals``.
    """
    found = (-1, -1)
    for overlay in overlays:
        found = highest_totals(rows, overlay, gap, found)
    return found


def zeros_of_all(plan: Plan, ranks: Sequence[int]) -> tuple[Zero, ...]:
    """ZeRO's holdings on several ranks; at every place the one that holds most is meant."""
    zeros = zeros_of(plan)
    if len(ranks) == 1:
        return zeros
    others = owns_of(plan, ranks[1:])
    cut_ranks = tuple(ranks) if cuts_bucket(plan) else ()
    return tuple(
        interned(replace(zero, others=others, share=replace(zero.share, cut_ranks=cut_ranks)))
        for zero in zeros
    )


def left_by_backward(plan: Plan) -> tuple[int, ...]:
    """Elements of the storages that gradients keep alive when backward is over (stage 1)."""
    return overlay_of(places_of(plan), zero_of(plan)).left()


def first_step_of(plan: Plan) -> Timeline:
    """The highest points of ``micro_steps.FIRST``."""
    return timeline(*micro_step_of(plan), zero_at_first(plan))


class Outline(NamedTuple):
    """Highest totals of forward and backward, in bytes.

    Attributes:
        later: in the micro steps of ``zeros_of``.
        first: in ``micro_steps.FIRST``; None without hpZ.
        per_rank: bytes that one more rank adds at most.
    """

    later: tuple[int, int]
    first: tuple[int, int] | None
    per_rank: int


def outline(plan: Plan, *, divides: bool) -> Outline:
    """Totals on so many ranks as a bound for others: at stage 3 all but padding falls with them.

    Of the ranks of which a tensor that is reduced alone is no multiple, more is copied; so
    ``divides`` says what they all do. Nothing is frozen.
    """
    zeros, first = list(zeros_of(plan)), None
    rows, layout = micro_step_of(plan)
    if zeros[0].secondary.ranks:
        zeros.append(zero_at_first(plan))
    zeros = [interned(replace(z, share=replace(z.share, divides=divides))) for z in zeros]
    overlays = [overlay_of(layout, zero) for zero in zeros]
    totals = [highest_totals(rows, overlay) for overlay in overlays]
    if zeros[0].secondary.ranks:
        first = totals.pop()
    return Outline(
        later=(max(f for f, _ in totals), max(b for _, b in totals)),
        first=first,
        per_rank=max(overlay.per_rank for overlay in overlays),
    )


def block_peaks_of(plan: Plan) -> list[BlockPeak]:
    """The highest point of every block, each pass as in the micro step that is highest there."""
    step, layout, found = select.activations_of(plan), places_of(plan), list(_timelines(plan))
    in_forward, _ = max(found, key=lambda one: one[1].forward.total)
    in_backward, _ = max(found, key=lambda one: one[1].backward.total)
    forward = (p for p in block_peaks(step, layout, in_forward) if not p.is_backward)
    backward = (p for p in block_peaks(step, layout, in_backward) if p.is_backward)
    return [*forward, *backward]


def _timelines(plan: Plan) -> Iterator[tuple[Zero, Timeline]]:
    rows, layout = micro_step_of(plan)
    for zero in zeros_of(plan):
        yield zero, timeline(rows, layout, zero)


@derived
def places_of(plan: Plan) -> Layout:
    """The places of a training step."""
    asked: tuple[int, ...] = ()
    if plan.loss == workload.FUSED_LINEAR and knows_loss(plan):
        asked = loss.head_of(plan.model)
    reentrant = plan.checkpointing and plan.checkpointing_how.by != workload.NON_REENTRANT
    leaves = leaves_of(plan).modules
    return layout_of(plan.model, select.activations_of(plan), leaves, asked, reentrant=reentrant)
