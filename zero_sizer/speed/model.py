"""Adding the terms up: what overlaps is hidden as far as there is compute to hide it."""

from math import fsum

from zero_sizer.activations import select
from zero_sizer.hardware.cluster import Cluster
from zero_sizer.plan.parallel import ranks_of
from zero_sizer.plan.plan import Plan
from zero_sizer.speed.rates import Case, Rates, rates_of
from zero_sizer.speed.step import Kind, Per, Step, Term
from zero_sizer.speed.terms import TERMS
from zero_sizer.speed.work import Work, work_of
from zero_sizer.util.records import dataclass


@dataclass(frozen=True, kw_only=True)
class TermTime:
    """One term with its number.

    Attributes:
        seconds: per optimizer step, if nothing overlapped.
        visible_seconds: what the step is longer for it.
    """

    term: Term
    seconds: float
    visible_seconds: float


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """The time of one optimizer step in one case.

    Attributes:
        seconds: of the whole step.
        parts: its terms, in the order of ``TERMS``.
        tokens: tokens of the step on one GPU.
    """

    seconds: float
    parts: tuple[TermTime, ...]
    tokens: int

    @property
    def tokens_per_second(self) -> float:
        """Per GPU."""
        return self.tokens / self.seconds if self.seconds else 0.0


def step_of(plan: Plan, cluster: Cluster, case: Case = Case.EXPECTED) -> Step | None:
    """Step that the terms read; None when no GPU was named, or nobody knows what inputs take."""
    if plan.feed is None:
        work: Work | None = work_of(plan.model)
    else:
        from zero_sizer.speed.fed import work_for  # most jobs are fed tokens alone

        work = work_for(plan)
    if work is None:
        return None
    dtype = plan.autocast_dtype or plan.model_dtype
    rates = rates_of(cluster, dtype, case, plan.attention_kernel)
    if rates is None:
        return None
    return step_at(plan, rates, work)


def step_at(plan: Plan, rates: Rates, work: Work) -> Step:
    """Step of a plan at rates that are known already."""
    nodes, recompute = ranks_of(plan).nodes, select.recomputed_share(plan)
    return Step(plan=plan, rates=rates, work=work, nodes=nodes, recompute=recompute)


def step_time(plan: Plan, cluster: Cluster, case: Case = Case.EXPECTED) -> StepTime | None:
    """Seconds of one optimizer step; None when no GPU was named."""
    step = step_of(plan, cluster, case)
    return None if step is None else time_of(step)


def time_of(step: Step) -> StepTime:
    """Add up every term."""
    found, visible = _found(step)
    parts = tuple(
        [
            TermTime(
                term=term,
                seconds=seconds,
                visible_seconds=seconds * visible if overlaps else seconds,
            )
            for term, seconds, overlaps in found
        ]
    )
    return StepTime(
        seconds=_sum(found, visible),
        parts=parts,
        tokens=step.tokens * step.plan.grad_accum,
    )


def seconds_of(step: Step) -> float:
    """Seconds of the whole step alone."""
    return _sum(*_found(step))


_Found = list[tuple[Term, float, bool]]  # a term, its seconds, whether it overlaps with compute


def _found(step: Step) -> tuple[_Found, float]:
    """Every term of the step, and the share of overlapping ones that lengthens it."""
    found = [
        (term, term.seconds(step) * _times(step, term), term.overlaps(step))
        for term in TERMS
        if term.when(step)
    ]
    # fsum: what sum() makes of floats is another number from Python 3.12 on
    overlapping = fsum([seconds for _, seconds, overlaps in found if overlaps])
    compute = fsum([seconds for term, seconds, _ in found if term.kind is Kind.COMPUTE])
    return found, _visible_share(overlapping, compute, step.rates.hidden)


def _sum(found: _Found, visible: float) -> float:
    return fsum([seconds * visible if overlaps else seconds for _, seconds, overlaps in found])


def _times(step: Step, term: Term) -> int:
    return step.plan.grad_accum if term.per is Per.MICRO_STEP else 1


def _visible_share(overlapping: float, compute: float, hidden: float) -> float:
    """Share of the overlapping time that still lengthens the step."""
    if not overlapping:
        return 1.0
    return max(1.0 - hidden, 1.0 - compute / overlapping)
