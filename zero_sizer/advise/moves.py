"""Changes to a job that free memory, each as small as it can be."""

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any

from zero_sizer.activations import select
from zero_sizer.advise.alternatives import Alternative
from zero_sizer.config import document, workload
from zero_sizer.config.batch import ACCUM, MICRO, TRAIN
from zero_sizer.hardware.device import Device
from zero_sizer.job.read import Job
from zero_sizer.plan import sizes
from zero_sizer.plan.plan import Plan
from zero_sizer.units import round_up
from zero_sizer.util.records import dataclass

_ZERO = "zero_optimization"
_SMALL_BUCKET = 50_000_000  # elements
_SUB_GROUP = 100_000_000


@dataclass(frozen=True, kw_only=True)
class Change:
    """One thing to change.

    Attributes:
        key: config key, or a flag where no key says it.
        value: what it becomes; None where it is taken out.
    """

    key: str
    value: Any


@dataclass(frozen=True, kw_only=True)
class Move:
    """A named change of a job.

    Attributes:
        name: short name.
        changes: what the user does.
        apply: the job after it.
        is_trade: it needs more of one device, or is one of two that exclude each other.
    """

    name: str
    changes: tuple[Change, ...]
    apply: Callable[[Job], Job]
    is_trade: bool = False


def _write(job: Job, changes: Mapping[str, Any]) -> Job:
    """The job with these config keys."""
    values = deepcopy(dict(job.document.values))
    for key, value in changes.items():
        node = values
        *parents, last = key.split(".")
        for name in parents:
            below = node.get(name)
            node[name] = dict(below) if isinstance(below, Mapping) else {}
            node = node[name]
        node[last] = value
    return replace(job, document=document.from_mapping(values, source=job.document.source))


def keys(name: str, changes: Mapping[str, Any], *, is_trade: bool = False) -> Move:
    """A move that only writes config keys."""
    return Move(
        name=name,
        changes=tuple(Change(key=key, value=value) for key, value in changes.items()),
        apply=lambda job: _write(job, changes),
        is_trade=is_trade,
    )


def smaller_buckets(plan: Plan) -> Move | None:
    """Smaller communication buffers."""
    if not plan.stage or plan.reduce_bucket_size <= _SMALL_BUCKET:
        return None
    changes = {f"{_ZERO}.reduce_bucket_size": _SMALL_BUCKET}
    if plan.stage == 3:
        changes |= {
            f"{_ZERO}.stage3_max_live_parameters": 100_000_000,
            f"{_ZERO}.stage3_max_reuse_distance": 0,
        }
    return keys("smaller buckets", changes)


def without_prefetch(plan: Plan) -> Move | None:
    """No weights gathered ahead, none kept for backward, none kept gathered."""
    if plan.stage < 3 or not plan.prefetch_bucket_size:
        return None
    names = ("prefetch_bucket_size", "max_reuse_distance", "param_persistence_threshold")
    return keys("no prefetch", {f"{_ZERO}.stage3_{name}": 0 for name in names})


def bucket_for_largest(plan: Plan) -> Move | None:
    """At stages 1 and 2, a bucket that takes the largest gradient, which stays beside it else."""
    whole = round_up(sizes.largest_tensor(plan), 2**20)
    if plan.stage not in (1, 2) or whole <= plan.reduce_bucket_size:
        return None
    changes = {f"{_ZERO}.reduce_bucket_size": whole}
    return keys("a bucket for the largest gradient", changes, is_trade=True)


def smaller_sub_groups(plan: Plan) -> Move | None:
    """Smaller steps of the optimizer: less beside them, smaller buffers for NVMe."""
    if plan.stage < 3 or plan.sub_group_size <= _SUB_GROUP:
        return None
    return keys("smaller sub-groups", {f"{_ZERO}.sub_group_size": _SUB_GROUP})


def unpinned(plan: Plan) -> Move | None:
    """Pageable host memory, which is not rounded up to powers of two; copies are slower."""
    if not plan.optimizer_pinned or plan.optimizer_device is Device.GPU:
        return None
    return keys("pageable host memory", {f"{_ZERO}.offload_optimizer.pin_memory": False})


def partial_offload(plan: Plan) -> Move | None:
    """Half of the optimizer's states back on the GPU (stage 3, optimizer on the host)."""
    is_whole = plan.optimizer_device is Device.HOST and plan.optimizer_ratio == 1
    if plan.stage < 3 or not is_whole or sizes.partition_numel(plan) < 4 * _SUB_GROUP:
        return None
    changes = {
        f"{_ZERO}.offload_optimizer.ratio": 0.5,
        f"{_ZERO}.sub_group_size": min(_SUB_GROUP, plan.sub_group_size),
    }
    return keys("partial offload", changes, is_trade=True)


def adapter(other: Alternative) -> Move:
    """Another job: an adapter of the same model."""
    flags = zip(other.flags[::2], other.flags[1::2], strict=True)
    return Move(
        name=other.name,
        changes=tuple(Change(key=flag, value=value) for flag, value in flags),
        apply=lambda job: replace(job, model=other.job.model),
    )


def checkpointing(plan: Plan) -> Move | None:
    """Activation checkpointing, which stands in the training code."""
    if plan.checkpointing:
        return None
    return Move(
        name="checkpointing",
        changes=(Change(key="--checkpointing", value=True),),
        apply=lambda job: replace(job, workload=replace(job.workload, checkpointing=True)),
    )


def fused_linear_loss(plan: Plan) -> Move | None:
    """Liger's loss, which never holds whole logits (the Trainer's ``use_liger_kernel``)."""
    is_usual = plan.loss == workload.TRANSFORMERS and plan.model.arch.family in workload.LIGER
    if not is_usual or not select.knows_loss(replace(plan, loss=workload.FUSED_LINEAR)):
        return None
    return Move(
        name="fused linear loss (Liger)",
        changes=(Change(key="--loss", value=workload.FUSED_LINEAR),),
        apply=lambda job: replace(job, workload=replace(job.workload, loss=workload.FUSED_LINEAR)),
    )


_LARGEST_BATCH = 4096  # samples of a GPU worth trying where more do not fit


def smaller_batches(plan: Plan) -> Iterator[Move]:
    """Smaller micro batches with more micro steps, the same train batch; the largest first."""
    for size in range(min(plan.micro_batch - 1, _LARGEST_BATCH), 0, -1):
        if plan.micro_batch % size == 0:
            yield _micro_batch(size, plan.grad_accum * (plan.micro_batch // size))


def _micro_batch(size: int, steps: int) -> Move:
    changes = {MICRO: size, ACCUM: steps}

    def apply(job: Job) -> Job:
        free = replace(job.workload, micro_batch=None, grad_accum=None)
        return _write(replace(job, workload=free), changes)

    return Move(
        name="smaller micro batch",
        changes=tuple(Change(key=key, value=value) for key, value in changes.items()),
        apply=apply,
    )


def strategies(plan: Plan, *, has_nvme: bool) -> Iterator[Move]:
    """Higher stages, then offload, the least first."""
    for stage in range(plan.stage + 1, 4):
        yield keys(f"ZeRO-{stage}", {f"{_ZERO}.stage": stage})
    if plan.optimizer_device is Device.GPU:
        if 0 < plan.stage < 3:
            yield keys("optimizer on host", _offload("optimizer", "cpu"))
        yield keys("ZeRO-3, optimizer on host", _at_stage_3(plan, _offload("optimizer", "cpu")))
    if plan.param_device is Device.GPU:
        kept = plan.stage == 3 and plan.optimizer_device is not Device.GPU
        optimizer = {} if kept else _offload("optimizer", "cpu")
        both = optimizer | _offload("param", "cpu")
        yield keys("ZeRO-3, weights on host too", _at_stage_3(plan, both))
    if has_nvme and plan.optimizer_device is not Device.NVME:
        swapped = _offload("optimizer", "nvme") | _offload("param", "cpu")
        yield keys("ZeRO-3, optimizer on NVMe", _at_stage_3(plan, swapped))


def _offload(what: str, device: str) -> dict[str, Any]:
    section = f"{_ZERO}.offload_{what}."
    path = {section + "nvme_path": "/local_nvme"} if device == "nvme" else {}
    return {section + "device": device, **path}


def _at_stage_3(plan: Plan, changes: Mapping[str, Any]) -> dict[str, Any]:
    return {**({} if plan.stage == 3 else {f"{_ZERO}.stage": 3}), **changes}


def more_nodes(job: Job, nodes: int) -> Move:
    """More nodes of the same kind; each GPU keeps its micro batch."""

    def apply(before: Job) -> Job:
        values = {k: v for k, v in before.document.values.items() if k != TRAIN}
        cluster = replace(before.cluster, nodes=nodes, slots=())
        text = document.from_mapping(values, source=before.document.source)
        return replace(before, document=text, cluster=cluster)

    return Move(
        name=f"{nodes} nodes",
        changes=(Change(key="--nodes", value=nodes),),
        apply=apply,
    )
