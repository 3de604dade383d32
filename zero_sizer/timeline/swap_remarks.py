"""Remarks on NVMe buffers that run out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import compress

from zero_sizer.config.workload import TRAINING
from zero_sizer.findings import Finding, Severity
from zero_sizer.plan import sizes
from zero_sizer.plan.plan import Plan


def remarks(plan: Plan) -> Iterator[Finding]:
    """Buffers of weights where the model is built, and of optimizer states in a step."""
    yield from _about_swap_buffers(plan)
    yield from _about_pipelined_swaps(plan)
    yield from _about_swapped_weights(plan)


def _about_swapped_weights(plan: Plan) -> Iterator[Finding]:
    """Steps stop in many jobs whose weights are really read from NVMe; no rule says in which.

    deepspeedai/DeepSpeed issue 3062; simulated runs of 0.19.8 stop with the second message too.
    """
    if plan.task != TRAINING or not any(sizes.is_on_nvme(plan)):
        return
    if sizes.partition_numel(plan) > plan.param_max_in_cpu:
        yield Finding(
            code="nvme-weights-may-stop",
            severity=Severity.WARNING,
            key="zero_optimization.offload_param.buffer_count",
            message="weights are read from NVMe in each step, and DeepSpeed 0.19.8 stops in many "
            'such jobs: "Not enough buffers" with few of them (5 are the default), "already '
            'assigned swap buffer" with any number',
            remedy="`zero-sizer dryrun --how simulated` runs this job's swapping; max_in_cpu above "
            f"{sizes.partition_numel(plan):,} keeps the weights in host memory",
        )


def _about_swap_buffers(plan: Plan) -> Iterator[Finding]:
    """A model that is built from its config needs buffers for a module's weights at once.

    transformers 5.23 integrations/deepspeed.py, initialize_weights_zero3: those of a module and of
    its children; partitioned_param_swapper.py:312.
    """
    swapped = sizes.is_on_nvme(plan)
    if not (any(swapped) and plan.zero_init and plan.stage == 3 and plan.model.exact_tensors):
        return
    together: Counter[str] = Counter()
    for tensor in compress(plan.model.parameters, swapped):
        together.update({tensor.module, tensor.module.rpartition(".")[0]})
    module, most = max(together.items(), key=lambda item: item[1], default=("", 0))
    if most > plan.param_buffer_count > 0:
        yield Finding(
            code="nvme-buffers-to-build",
            severity=Severity.WARNING,
            key="zero_optimization.offload_param.buffer_count",
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
