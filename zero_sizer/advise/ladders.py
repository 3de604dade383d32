"""The ladder of a strategy for one job: by its largest tensor, its optimizer and its ranks."""

from dataclasses import replace

from zero_sizer.advise.config import ZERO, strategy_config
from zero_sizer.advise.ladder import Ladder, Swap, ladder_of, with_keys
from zero_sizer.advise.planned import plan_or_errors
from zero_sizer.advise.strategy import Strategy, fewest_swap_buffers, smallest_swap_buffer
from zero_sizer.config import document
from zero_sizer.hardware.device import Device
from zero_sizer.job.read import Job
from zero_sizer.plan.plan import Plan
from zero_sizer.timeline.swapped_weights import buffers_of_a_module
from zero_sizer.zero.partition import flat_partition


def job_of_strategy(job: Job, strategy: Strategy) -> Job:
    """A job turned to a strategy, at micro batch 1 where its config has none."""
    values = strategy_config(job.document.values, strategy)
    return replace(
        job,
        document=document.from_mapping({"train_micro_batch_size_per_gpu": 1, **values}),
        workload=replace(job.workload, micro_batch=None, grad_accum=None),
    )


def ladder_for(job: Job, strategy: Strategy, plan: Plan | None) -> Ladder:
    """Settings worth trying for a strategy of a job.

    Args:
        job: what the user said.
        strategy: stage and offload.
        plan: of the job turned to it; None where DeepSpeed would not run it.
    """
    largest = max((tensor.numel for tensor in job.model.parameters), default=0)
    share = flat_partition(job.model.num_trainable, job.cluster.world_size)
    swap = Swap(smallest_swap_buffer(job))
    if plan is not None:
        swap = swap._replace(states=fewest_swap_buffers(plan), modules=_more_for_a_module(plan))
    found = ladder_of(strategy, largest, swap, share)
    return found if _takes_ratio(job, strategy, found) else replace(found, partial=())


def _more_for_a_module(plan: Plan) -> int:
    """Buffers for weights, where one module's on NVMe need more than the plan has; else 0.

    Checkpointing is free: with it, frozen ones stay until their block is over.
    """
    if plan.param_device is not Device.NVME:
        return 0
    both = (replace(plan, checkpointing=is_on) for is_on in (False, True))
    needed = max(map(buffers_of_a_module, both))
    return needed if needed > plan.param_buffer_count else 0


def _takes_ratio(job: Job, strategy: Strategy, ladder: Ladder) -> bool:
    """Whether the optimizer is one that can be offloaded in part."""
    if not ladder.partial:
        return False
    turned = job_of_strategy(job, strategy)
    values = dict(turned.document.values)
    values[ZERO] = with_keys(values[ZERO], ladder.partial[0][0])
    return not plan_or_errors(replace(turned, document=document.from_mapping(values)))[1]
