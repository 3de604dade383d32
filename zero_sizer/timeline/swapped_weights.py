"""From a plan to the run whose weights are read from NVMe, and where DeepSpeed stops in it."""

from __future__ import annotations

from functools import lru_cache

from zero_sizer.activations import select
from zero_sizer.plan.plan import Plan, derived
from zero_sizer.timeline import compose, micro_steps
from zero_sizer.timeline.overlay import gathering_of
from zero_sizer.timeline.program import program_of
from zero_sizer.util.identity import Identity
from zero_sizer.zero.swap_stops import Run, StopAt, Visits, first_stop
from zero_sizer.zero.trace import Known


@derived
def run_of(plan: Plan) -> Run | None:
    """The run of a plan; None where nothing is read, or the order of the modules is not known."""
    later = micro_steps.zero_in(plan, micro_steps.LAST)
    is_known = plan.model.exact_tensors and not plan.model.has_own_code
    if later.swapped is None or select.is_closed_form(plan) or not is_known:
        return None
    visits = _visits(Identity(program_of(compose.places_of(plan))))
    if not visits.of.forward:
        return None
    first = gathering_of(micro_steps.zero_in(plan, micro_steps.UNTRACED))
    unstepped = gathering_of(micro_steps.zero_in(plan, micro_steps.UNSTEPPED))
    return Run(
        program=visits,
        first=first._replace(persistent=(False,) * len(first.persistent)),
        unstepped=unstepped,
        later=gathering_of(later),
        micro_steps=plan.grad_accum,
    )


@derived
def stop_of(plan: Plan) -> StopAt | None:
    """The assertion at which DeepSpeed stops in a run that is known; else None."""
    run = run_of(plan)
    return first_stop(run) if run is not None else None


@lru_cache(maxsize=64)
def _visits(program: Identity) -> Identity:
    visits, forward = program.of.visits
    return Identity(Visits(visits, forward, program.of.blocks))
