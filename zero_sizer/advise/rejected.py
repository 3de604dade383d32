"""Strategies of which no plan fits, and why."""

from collections.abc import Mapping
from dataclasses import field

from zero_sizer.advise.candidate import Candidate
from zero_sizer.advise.limits import Shortfall, missing_of
from zero_sizer.advise.planned import largest
from zero_sizer.advise.search import Search
from zero_sizer.advise.strategy import Strategy
from zero_sizer.findings import Finding
from zero_sizer.hardware.device import Device
from zero_sizer.ledger.entry import Allocation
from zero_sizer.util.records import dataclass


@dataclass(frozen=True, kw_only=True)
class RejectedStrategy:
    """A strategy of which no plan fits, or that DeepSpeed would refuse.

    Attributes:
        closest: the plan that is short of least, if any could be made.
        shortfalls: what it is short of.
        entries: the largest allocations at that moment on the first device.
        refusals: why DeepSpeed would not run it.
        reason: why there was nothing to try, in words.
        least: per device, the least that any plan of the strategy needs of it.
    """

    strategy: Strategy
    closest: Candidate | None = None
    shortfalls: tuple[Shortfall, ...] = ()
    entries: tuple[Allocation, ...] = ()
    refusals: tuple[Finding, ...] = ()
    reason: str = ""
    least: Mapping[Device, int] = field(default_factory=dict)


def rejection_of(search: Search, strategy: Strategy, nodes: int) -> RejectedStrategy:
    """Why no plan of a strategy fits on so many nodes."""
    if strategy.name in search.refusals:
        return RejectedStrategy(strategy=strategy, refusals=search.refusals[strategy.name])
    if nodes < strategy.needs_nodes:
        return RejectedStrategy(strategy=strategy, reason="same as ZeRO-3 on one node")
    smallest = list(search.smallest(strategy, nodes))
    if not smallest:
        return RejectedStrategy(
            strategy=strategy,
            reason=f"{search.batch.about} cannot be split over {search.world_size(nodes)} GPUs",
        )
    closest = min(smallest, key=lambda c: missing_of(search.shortfalls(c)))
    shortfalls = tuple(search.shortfalls(closest))
    uses = [search.uses(candidate) for candidate in smallest]
    return RejectedStrategy(
        strategy=strategy,
        closest=search.timed(closest),
        shortfalls=shortfalls,
        entries=largest(search.plan(closest), shortfalls[0]) if shortfalls else (),
        least={d: min(use[d].num_bytes for use in uses) for d in Device},
    )
