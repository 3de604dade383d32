"""From a plan to the run whose weights are read from NVMe, and where DeepSpeed stops in it."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from itertools import compress

from zero_sizer.activations import select
from zero_sizer.plan import sizes
from zero_sizer.plan.plan import Plan, derived
from zero_sizer.timeline import compose, micro_steps
from zero_sizer.timeline.overlay import gathering_of
from zero_sizer.timeline.program import program_of
from zero_sizer.util.identity import Identity
from zero_sizer.zero.swap_stops import Run, StopAt, Visits, fewest_at_once, first_stop

_WITHIN_ADAPTER = ".base_layer"


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
    first = gathering_of(Identity(micro_steps.zero_in(plan, micro_steps.UNTRACED)))
    unstepped = gathering_of(Identity(micro_steps.zero_in(plan, micro_steps.UNSTEPPED)))
    return Run(
        program=visits,
        first=first._replace(persistent=(False,) * len(first.persistent)),
        unstepped=unstepped,
        later=gathering_of(Identity(later)),
        micro_steps=plan.grad_accum,
    )


@derived
def stop_of(plan: Plan) -> StopAt | None:
    """The assertion at which DeepSpeed stops in a run that is known; else None."""
    run = run_of(plan)
    return first_stop(run) if run is not None else None


def gathered_to_build(plan: Plan) -> tuple[str, int]:
    """Module, and how many of its weights that lie on NVMe are gathered at once to build it.

    transformers 5.23 integrations/deepspeed.py, initialize_weights_zero3: those of a module and of
    its children; partitioned_param_swapper.py:312.
    """
    swapped = sizes.is_on_nvme(plan)
    if not (any(swapped) and plan.zero_init and plan.stage == 3 and plan.model.exact_tensors):
        return "", 0
    together: Counter[str] = Counter()
    for tensor in compress(plan.model.parameters, swapped):
        module = tensor.module.removesuffix(_WITHIN_ADAPTER)
        together.update({module, module.rpartition(".")[0]})
    return max(together.items(), key=lambda item: item[1], default=("", 0))


def buffers_of_a_module(plan: Plan) -> int:
    """Buffers with which a run goes on without prefetching and reuse, and its model can be built.

    0 where nothing is read, or the order of the modules is not known.
    """
    run = run_of(plan)
    if run is None:
        return 0
    frugal = run.with_limits(prefetch_bucket_size=0, max_reuse_distance=0)
    return max(fewest_at_once(frugal), gathered_to_build(plan)[1])


@lru_cache(maxsize=64)
def _visits(program: Identity) -> Identity:
    visits, forward = program.of.visits
    return Identity(Visits(visits, forward, program.of.blocks))
