"""Time and money over numbers of nodes: a curve, and the fewest nodes that meet a goal."""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

from zero_sizer.advise.candidate import Candidate
from zero_sizer.advise.search import Search
from zero_sizer.job.goal import Goal
from zero_sizer.speed.training import Training, training_of
from zero_sizer.util.records import dataclass


@dataclass(frozen=True, kw_only=True)
class Point:
    """One number of nodes.

    Attributes:
        plan: the fastest there.
        efficiency: tokens a second and GPU, over those of the size where they are most: a GPU holds
            less of the model on more nodes, so that the smallest size is not always it.
        gained: of the throughput that the GPUs added since the size before could bring at that
            size's pace, the share that they bring; None for the smallest.
        training: the run on it; None where nothing says how much is trained.
    """

    plan: Candidate
    efficiency: float
    gained: float | None
    training: Training | None

    @property
    def meets_goal(self) -> bool:
        """True if the run is in time and within the budget."""
        return self.training is not None and not self.training.marks


@dataclass(frozen=True, kw_only=True)
class Miss:
    """By how much the nearest plan misses a goal.

    Attributes:
        plan: the fastest where none is in time, the cheapest of those in time otherwise.
        training: the run on it.
    """

    plan: Candidate
    training: Training


def points(search: Search, plans: Sequence[Candidate], goal: Goal | None) -> tuple[Point, ...]:
    """The curve through the fastest plans, smallest cluster first."""
    if not plans:
        return ()
    best = max(map(_pace, plans))
    gains = [None, *(_gained(a, b) for a, b in pairwise(plans))]
    return tuple(
        Point(
            plan=plan,
            efficiency=_pace(plan) / best if best else 0.0,
            gained=gain,
            training=run_of(search, plan, goal),
        )
        for plan, gain in zip(plans, gains, strict=True)
    )


def run_of(search: Search, plan: Candidate, goal: Goal | None) -> Training | None:
    """The training run on a plan."""
    return None if goal is None else training_of(search.plan(plan), search.job.cluster, goal)


def miss_of(search: Search, plans: Iterable[Candidate], goal: Goal) -> Miss | None:
    """The plan that comes nearest to a goal that nothing meets."""
    runs = [(plan, run_of(search, plan, goal)) for plan in plans]
    known = [Miss(plan=plan, training=run) for plan, run in runs if run is not None]
    in_time = [miss for miss in known if miss.training.is_in_time]
    if not in_time:
        return min(known, key=lambda miss: miss.training.days.expected, default=None)
    return min(in_time, key=lambda miss: _usd(miss.training))


def meets(search: Search, goal: Goal) -> Callable[[Candidate], bool]:
    """A test of plans: in time and within the budget."""

    def test(plan: Candidate) -> bool:
        run = run_of(search, plan, goal)
        return run is not None and not run.marks

    return test


def _usd(run: Training) -> float:
    return run.usd.expected if run.usd else float("inf")


def _pace(plan: Candidate) -> float:
    """Tokens a second and GPU."""
    return plan.tokens_per_second / plan.world_size


def _gained(smaller: Candidate, larger: Candidate) -> float | None:
    share = larger.world_size / smaller.world_size - 1
    if not share or not smaller.tokens_per_second:
        return None
    return (larger.tokens_per_second / smaller.tokens_per_second - 1) / share
