"""The job that a run is: its engine's config, its model, its machines, its loop."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, field
from math import isfinite
from typing import Any

from zero_sizer.config.document import from_mapping
from zero_sizer.dryrun.from_job import model_source
from zero_sizer.errors import InputError
from zero_sizer.findings import Finding, Severity
from zero_sizer.hardware import catalog
from zero_sizer.hardware.assemble import Stated, assemble
from zero_sizer.hardware.workspaces import blas_bytes
from zero_sizer.integrations import live_model, meters
from zero_sizer.integrations.batches import sequences_of, shape_of
from zero_sizer.job import fields
from zero_sizer.job.fields import Flags
from zero_sizer.job.read import Job, section, workload_of
from zero_sizer.parallel import laid_out
from zero_sizer.plan.plan import Plan
from zero_sizer.units import ceil_div
from zero_sizer.util.records import dataclass

_RUN = "the run"
_NO_NUMBER = object()
_ATTENTION = {"flash_attention_2": "flash", "flash_attention_3": "flash", "sdpa": "sdpa",
              "eager": "eager"}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run, as its loop shows it.

    Attributes:
        model: the module, wrapped or not.
        config: its DeepSpeed config, every "auto" filled; None without DeepSpeed.
        rank: global rank.
        world_size: ranks.
        local_world_size: ranks of this node.
        loop: of the workload's options, those that the loop states, in our words.
        left_out: what the loop does that no prediction holds.
    """

    model: Any
    config: Mapping[str, Any] | None
    rank: int = 0
    world_size: int = 1
    local_world_size: int = 1
    loop: Mapping[str, Any] = field(default_factory=dict)
    left_out: tuple[Finding, ...] = ()


def job_of(run: Run, flags: Flags) -> Job:
    """The job of a run; what is stated in ``flags`` wins over what is seen.

    Raises:
        InputError: there is no DeepSpeed config, or a value is wrong.
        UnsupportedError: the model has what is not modelled.
    """
    if run.config is None:
        raise InputError("the run has no DeepSpeed config", remedy="nothing is predicted for it")
    seen = {**_attention(run.model), **_checkpointing(run.model), **run.loop}
    workload = workload_of(section(_stated(seen), fields.WORKLOAD, flags))
    document = from_mapping(run.config, "the run's config")
    return Job(
        document=document,
        model=live_model.spec_of(run.model),
        cluster=assemble(section(_stated(_machines(run)), fields.CLUSTER, flags)),
        workload=workload,
        origins={"deepspeed": document.source, "model": _RUN},
        findings=run.left_out,
    )


def loop_with(run: Run, batch: Mapping[str, Any]) -> dict[str, Any]:
    """The statements of a loop, with what its first batch shows.

    Other rows than the config's micro batch are as many tokens all the same: DPO has two for each
    pair, and padding-free batches have one for all.
    """
    loop, shape = dict(run.loop), shape_of(batch)
    if shape is not None:
        rows, tokens = shape[0], max(shape[1], loop.get("seq_len") or 0)
        config = run.config or {}
        micro_batch = config.get("train_micro_batch_size_per_gpu")
        each = micro_batch if isinstance(micro_batch, int) and micro_batch > 0 else rows
        loop["seq_len"] = ceil_div(rows * tokens, each)
        loop["micro_batch"] = each
        loop.setdefault("sequences", sequences_of(batch))
    return loop


def _stated(values: Mapping[str, Any]) -> dict[str, Stated]:
    return {name: Stated(value, _RUN) for name, value in values.items() if value is not None}


def _machines(run: Run) -> dict[str, Any]:
    ranks = laid_out(run.world_size, run.local_world_size)
    found: dict[str, Any] = {
        "nodes": ranks.nodes,
        "gpus_per_node": ranks.ranks_per_node,
        "host_memory": meters.host_memory(),
    }
    gpu = meters.gpu_properties()
    if gpu is not None:
        found["gpu_memory"] = int(gpu.total_memory)
        with suppress(InputError):  # a card that is not in the table: its memory is known
            found["gpu"] = catalog.find(str(gpu.name)).name
    return found


def _attention(model: Any) -> dict[str, Any]:
    config = getattr(live_model.unwrapped(model), "config", None)
    named = str(getattr(config, "_attn_implementation", None) or "")
    return {"attention": "flash" if "flash" in named else _ATTENTION.get(named)}


def _checkpointing(model: Any) -> dict[str, Any]:
    module = live_model.unwrapped(model)
    for name in ("is_activation_checkpointing", "is_gradient_checkpointing"):  # new and old name
        is_on = getattr(module, name, None)
        if isinstance(is_on, bool):
            return {"checkpointing": is_on}
    return {}


def _plain(value: Any) -> Any:
    """Values of JSON, without infinity (accelerate's ``steps_per_print``), which JSON has not."""
    if isinstance(value, Mapping):
        kept = {str(key): _plain(item) for key, item in value.items()}
        return {key: item for key, item in kept.items() if item is not _NO_NUMBER}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not isfinite(value):
        return _NO_NUMBER
    return value if value is None or isinstance(value, str | int | float) else str(value)


def recorded(run: Run, gpu: Any, job: Job | None, plan: Plan | None) -> dict[str, Any]:
    """The job as a recording keeps it: what is needed to predict it again, as in a dry run's.

    Args:
        run: what is seen of it.
        gpu: PyTorch's properties of this rank's; None without one.
        job: as it was read; None where it was not.
        plan: resolved; None where there is none.
    """
    found: dict[str, Any] = {
        "local_world_size": run.local_world_size,
        "config": None if run.config is None else _plain(run.config),
        "gpu_name": None if gpu is None else str(gpu.name),
        "gpu_bytes": None if gpu is None else int(gpu.total_memory),
        "host_bytes": meters.host_memory(),
    }
    own = [f.message for f in run.left_out if f.severity is Severity.WARNING]
    if own:
        found["left_out"] = own
    if job is None:
        return found
    source, notes = model_source(job.model)
    row = job.cluster.gpu
    found |= {"name": job.model.name, "gpu": row.name if row else None}
    found["blas_bytes"] = blas_bytes(row) if row and gpu is not None else 0
    found |= {**source, "notes": notes, "optimizer": job.workload.optim}
    if plan is not None:
        found |= {
            "micro_batch": plan.micro_batch,
            "grad_accum": plan.grad_accum,
            "seq_len": plan.seq_len,
            "checkpointing": plan.checkpointing,
            "checkpointing_how": asdict(plan.checkpointing_how),
            "attention": plan.attention,
            "sequences": plan.sequences,
            "zero_init": plan.zero_init,
            "kernels": job.workload.kernels,
        }
    return found
