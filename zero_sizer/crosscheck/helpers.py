"""DeepSpeed's own estimate functions, called, and what they leave out said in words.

``estimate_zero2_model_states_mem_needs`` (runtime/zero/stage_1_and_2.py) and
``estimate_zero3_model_states_mem_needs`` (runtime/zero/stage3.py): model states only, from two
numbers of the model. The ``_all_live`` and ``_all_cold`` functions print what these return.
"""

import copy
import importlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import replace
from typing import Any

from zero_sizer.config.document import from_mapping
from zero_sizer.errors import WitnessError
from zero_sizer.hardware.device import Device
from zero_sizer.job.read import Job
from zero_sizer.ledger.entry import Allocation, Category
from zero_sizer.models.spec import ModelSpec
from zero_sizer.plan import sizes
from zero_sizer.plan.plan import Plan
from zero_sizer.sizing import Sizing
from zero_sizer.units import DType
from zero_sizer.util.records import dataclass

_ZERO2 = "deepspeed.runtime.zero.stage_1_and_2"
_ZERO3 = "deepspeed.runtime.zero.stage3"
_STATES = (
    Category.PARAMETERS,
    Category.MASTER_WEIGHTS,
    Category.OPTIMIZER_STATES,
    Category.GRADIENTS,
)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """One line of a helper's table.

    Attributes:
        stage: 2 or 3.
        offload_optimizer: the helper's ``cpu_offload``.
        offload_param: the helper's ``cpu_offload_params``; False at stage 2, which has none.
        zero_init: the helper's ``zero_init``; None at stage 2, which has none.
        gpu_bytes: per GPU, as returned.
        host_bytes: per node, as returned.
    """

    stage: int
    offload_optimizer: bool
    offload_param: bool = False
    zero_init: bool | None = None
    gpu_bytes: int
    host_bytes: int

    @property
    def options(self) -> str:
        """The options in the helper's own words."""
        words = [f"offload_optimizer={'cpu' if self.offload_optimizer else 'none'}"]
        if self.stage == 3:
            words.insert(0, f"offload_param={'cpu' if self.offload_param else 'none'}")
            words.append(f"zero_init={int(bool(self.zero_init))}")
        return ", ".join(words)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One reason why the ledger's peak is not the helper's figure.

    Attributes:
        device: where.
        num_bytes: ledger minus helper; the differences of a device add up to the whole of it.
        about: the reason, in words.
    """

    device: Device
    num_bytes: int
    about: str


def estimates(
    total_params: int, largest_layer_params: int, *, nodes: int, gpus_per_node: int
) -> tuple[Estimate, ...]:
    """Every line that the helpers would print, in their order.

    Args:
        total_params: elements of the model, tied tensors once.
        largest_layer_params: most elements that one module owns directly.
        nodes: number of nodes.
        gpus_per_node: ranks of a node.

    Raises:
        WitnessError: DeepSpeed is not installed.
    """
    zero2 = _helper(_ZERO2, "estimate_zero2_model_states_mem_needs")
    zero3 = _helper(_ZERO3, "estimate_zero3_model_states_mem_needs")
    cluster = {"num_gpus_per_node": gpus_per_node, "num_nodes": nodes}
    lines = []
    for offload in (True, False):
        host, gpu = zero2(total_params, cpu_offload=offload, **cluster)
        lines.append(Estimate(stage=2, offload_optimizer=offload, gpu_bytes=gpu, host_bytes=host))
    for offload, offload_param in ((True, True), (True, False), (False, False)):
        for zero_init in (True, False):
            host, gpu, _ = zero3(
                total_params,
                largest_layer_params,
                cpu_offload=offload,
                cpu_offload_params=offload_param,
                zero_init=zero_init,
                **cluster,
            )
            lines.append(
                Estimate(
                    stage=3,
                    offload_optimizer=offload,
                    offload_param=offload_param,
                    zero_init=zero_init,
                    gpu_bytes=gpu,
                    host_bytes=host,
                )
            )
    return tuple(lines)


def _helper(module: str, name: str) -> Any:
    try:
        with redirect_stdout(sys.stderr):  # DeepSpeed's logger writes where stdout is when it loads
            return getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise WitnessError(
            f"DeepSpeed's helpers need deepspeed and torch: {error}",
            remedy="pip install 'zero-sizer[deepspeed]'",
        ) from None


def largest_layer(model: ModelSpec) -> int:
    """Most elements that one module owns directly (the helper's ``largest_layer_params``)."""
    owned: dict[str, int] = {}
    for tensor in model.parameters:
        owned[tensor.module] = owned.get(tensor.module, 0) + tensor.numel
    return max(owned.values(), default=0)


def for_job(sizing: Sizing) -> tuple[Estimate, ...]:
    """The helpers' lines for a job's model and cluster."""
    job = sizing.job
    return estimates(
        job.model.num_params,
        largest_layer(job.model),
        nodes=job.cluster.nodes,
        gpus_per_node=job.cluster.gpus_per_node,
    )


def matching(plan: Plan, lines: Iterable[Estimate]) -> Estimate | None:
    """The line that a user of the job's config would read, or None: no helper below stage 2."""
    for line in lines:
        offloads = (
            plan.optimizer_device is not Device.GPU,
            plan.param_device is not Device.GPU,
        )
        same_init = line.zero_init in (None, plan.zero_init)
        same_offload = (line.offload_optimizer, line.offload_param) == offloads
        if line.stage == plan.stage and same_offload and same_init:
            return line
    return None


def variant(job: Job, line: Estimate) -> Job:
    """The job with the stage, the offload and the ``zero.Init`` that a line is about."""
    config = copy.deepcopy(dict(job.document.values))
    zero = config.get("zero_optimization")
    zero = dict(zero) if isinstance(zero, Mapping) else {}
    zero["stage"] = line.stage
    for name, offloads in (
        ("offload_optimizer", line.offload_optimizer),
        ("offload_param", line.offload_param),
    ):
        before = zero.pop(name, None)
        if offloads:
            zero[name] = {**(before if isinstance(before, Mapping) else {}), "device": "cpu"}
    config["zero_optimization"] = zero
    return replace(
        job,
        document=from_mapping(config, job.document.source),
        workload=replace(job.workload, zero_init=bool(line.zero_init)),
    )


def differences(sizing: Sizing, estimate: Estimate) -> tuple[Difference, ...]:
    """Why the ledger's peak differs from a helper's line; the parts of a device add up."""
    plan = sizing.plan
    if plan is None:
        return ()
    return (
        *_device(sizing, plan, Device.GPU, estimate.gpu_bytes),
        *_device(sizing, plan, Device.HOST, estimate.host_bytes),
    )


def _device(sizing: Sizing, plan: Plan, device: Device, helper: int) -> Iterator[Difference]:
    ranks = 1 if device is Device.GPU else plan.ranks_per_node
    moment = sizing.peaks[device].moment
    live = [a for a in sizing.allocations if a.device is device and moment in a.moments]
    states = [a for a in live if a.category in _STATES]
    held = ranks * sum(a.num_bytes for a in states)
    reasons = _gpu_reasons(plan) if device is Device.GPU else _host_reasons(plan)
    about = f"model states at {moment.value}: " + "; ".join(reasons)
    yield Difference(device=device, num_bytes=held - helper, about=about)
    for category in Category:
        rest = [a for a in live if a.category is category and category not in _STATES]
        if rest:
            yield Difference(
                device=device,
                num_bytes=ranks * sum(a.num_bytes for a in rest),
                about=f"left out: {category.value} ({_names(rest)})",
            )
    rounding = ranks * sum(a.rounding_bytes for a in live)
    if rounding:
        about = "left out: each pinned buffer is rounded up to a power of two"
        yield Difference(device=device, num_bytes=rounding, about=about)


def _names(allocations: list[Allocation]) -> str:
    largest = sorted(allocations, key=lambda a: -a.num_bytes)
    names = list(dict.fromkeys(a.name for a in largest))
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _gpu_reasons(plan: Plan) -> Iterator[str]:
    if plan.stage == 3:
        yield (
            "the helper counts one layer at 4 bytes an element as gathered, where prefetch, reuse "
            "and persistence keep others too, in the model's dtype"
        )
    if plan.optimizer_device is Device.GPU:
        yield (
            "the helper adds 2 bytes of gradients and 4 of their fp32 copies for every element "
            "of the partition as if both were always there"
        )
    elif plan.stage == 2:
        yield "the helper counts the 16-bit weights alone"
    if plan.stage == 2 and plan.optimizer_device is Device.GPU:
        yield "gradients are kept as whole tensors wherever one touches the partition"
    yield from _shared_reasons(plan)


def _host_reasons(plan: Plan) -> Iterator[str]:
    if plan.optimizer_device is Device.GPU:
        yield (
            "the helper reserves room to build or load the model, times a buffer factor of 1.5; "
            "nothing of that is a model state"
        )
        return
    yield "the helper multiplies by a buffer factor of 1.5"
    if plan.stage == 2:
        yield (
            "it takes 16 bytes an element, or 4 for each GPU of the whole job although the "
            "figure is one node's; fp32 masters, their gradients, the 16-bit staging buffer and "
            "two states come to 18"
        )
    else:
        yield (
            "it takes 16 bytes an element, 18 with offloaded parameters; masters, their "
            "gradients, the 16-bit gradient partition and two states come to 18, offloaded "
            "parameters to 20"
        )
    yield from _shared_reasons(plan)


def _shared_reasons(plan: Plan) -> Iterator[str]:
    if plan.model_dtype is DType.FP32:
        yield "the helper takes 16-bit weights, this job trains in fp32"
    if len(plan.optimizer.states) != 2:
        yield f"the helper takes Adam's two states, this job's optimizer is {plan.optimizer.name}"
    if sizes.frozen(plan):
        yield "the helper takes every parameter as trained, frozen ones too"
