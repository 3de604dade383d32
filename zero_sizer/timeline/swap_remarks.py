"""Remarks on NVMe buffers that run out."""

from __future__ import annotations

from collections.abc import Iterator

from zero_sizer.config.workload import TRAINING
from zero_sizer.findings import Finding, Severity
from zero_sizer.plan import sizes
from zero_sizer.plan.plan import Plan
from zero_sizer.timeline.swapped_weights import gathered_to_build, run_of, stop_of
from zero_sizer.zero.swap_stops import Run, StopAt, When, fewest_at_once, fewest_buffers


def remarks(plan: Plan) -> Iterator[Finding]:
    """Buffers of weights where the model is built, and of optimizer states in a step."""
    yield from _about_swap_buffers(plan)
    yield from _about_pipelined_swaps(plan)
    yield from _about_swapped_weights(plan)


_COUNT = "zero_optimization.offload_param.buffer_count"
_TRIES = 24  # numbers of buffers above the one that gathering alone takes


def _about_swapped_weights(plan: Plan) -> Iterator[Finding]:
    """DeepSpeed stops where weights on NVMe find no buffer (its issue 3062)."""
    if plan.task != TRAINING or not any(sizes.is_read_from_nvme(plan)):
        return
    run = run_of(plan)
    if run is None:
        yield _about_unknown_order(plan)
        return
    found = stop_of(plan)
    if found is not None:
        yield Finding(
            code="nvme-weight-buffers",
            severity=Severity.ERROR,
            key=_COUNT,
            message=_message(plan, found),
            remedy=_remedy(run, plan.param_buffer_count, gathered_to_build(plan)[1]),
        )


def _about_unknown_order(plan: Plan) -> Finding:
    """Which modules run one after the other decides whether a step stops."""
    return Finding(
        code="nvme-weights-may-stop",
        severity=Severity.WARNING,
        key=_COUNT,
        message="weights are read from NVMe in each step, and the order in which this model's "
        'modules run is not known: DeepSpeed may stop with "Not enough buffers" (5 are the '
        'default) or "already assigned swap buffer"',
        remedy="`zero-sizer dryrun --how simulated` runs this job's swapping; without prefetching "
        "and reuse (stage3_prefetch_bucket_size and stage3_max_reuse_distance 0) as many buffers "
        "as one module has weights are enough",
    )


def _message(plan: Plan, found: StopAt) -> str:
    names = [plan.model.parameters[i].name for i in found.stop.wanted]
    when = found.when.value
    if found.when is not When.STEP:
        when = f"the {'forward' if found.is_forward else 'backward'} of {when}"
    if found.stop.twice is not None:
        twice = plan.model.parameters[found.stop.twice].name
        return (
            f'AssertionError in {when}, "param already assigned swap buffer id": reading ahead '
            f"meets {twice} twice before it has been read"
        )
    count = len(names)
    read = "reads " + (names[0] if count == 1 else f"{count} weights at once, {names[0]} first")
    return (
        f'AssertionError in {when}, "Not enough buffers {found.stop.free} for swapping {count}": '
        f"DeepSpeed {read}, and {found.stop.free} of {plan.param_buffer_count} buffers are free"
    )


def _remedy(run: Run, buffers: int, least: int) -> str:
    """The fewest buffers with which the run goes on, as it is and without what takes many.

    Args:
        run: any that stops.
        buffers: it has.
        least: buffers to build the model.
    """
    found, none_ahead = list[str](), "stage3_prefetch_bucket_size to 0"
    plain = run.with_limits(prefetch_bucket_size=0)
    fewest, count = fewest_buffers(run, _TRIES, least), max(least, fewest_at_once(plain))
    if fewest is not None:
        found.append(f"set it to {fewest}")
    if run.later.limits.prefetch_bucket_size:
        if count <= buffers:
            found.append(f"set {none_ahead}")
        elif fewest is None or count < fewest:
            found.append(f"set it to {count} and {none_ahead}")
    frugal = max(least, fewest_at_once(plain.with_limits(max_reuse_distance=0)))
    if frugal < min(count, fewest or count):
        keys = "stage3_prefetch_bucket_size and stage3_max_reuse_distance"
        found.append(f"set it to {frugal} and {keys} to 0")
    return ", or ".join(found)


def _about_swap_buffers(plan: Plan) -> Iterator[Finding]:
    """A model that is built from its config needs buffers for a module's weights at once."""
    module, most = gathered_to_build(plan)
    if most > plan.param_buffer_count > 0:
        yield Finding(
            code="nvme-buffers-to-build",
            severity=Severity.WARNING,
            key=_COUNT,
            message=f"{plan.param_buffer_count} buffers run out where the model is built from its "
            f"config (`from_config`): transformers gathers the {most} weights of {module} at "
            "once; `from_pretrained` of a complete checkpoint does not",
            remedy=f"set it to {most} or more",
        )


def _about_pipelined_swaps(plan: Plan) -> Iterator[Finding]:
    """A sub-group that is read ahead, or still written, has buffers of its own.

    pipelined_optimizer_swapper.py:88-144, 181-260.
    """
    swapped = sizes.swapped_partitions(plan)
    tensors, groups = (
        2 + len(plan.optimizer.states),
        min(len(swapped), 1 + plan.optimizer_pipelines),
    )
    if plan.optimizer_pipelines and plan.optimizer_buffer_count < tensors * groups:
        yield Finding(
            code="nvme-buffers",
            severity=Severity.ERROR,
            key="zero_optimization.offload_optimizer.buffer_count",
            message=f"AssertionError in the first or second step: {plan.optimizer_buffer_count} "
            f"buffers, and master weights, states and gradient of {groups} sub-groups in flight "
            f"take {tensors} each where reads or writes are pipelined",
            remedy=f"set it to {tensors * groups}, or disable pipeline_read and pipeline_write",
        )
