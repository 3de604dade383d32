"""Changes that a chosen plan makes in the user's config, and the job YAML that ``check`` reads."""

import os
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from zero_sizer.advise.candidate import Candidate
from zero_sizer.advise.choose import Choice
from zero_sizer.advise.config import ZERO
from zero_sizer.advise.search import Search
from zero_sizer.config import batch
from zero_sizer.config.document import from_mapping
from zero_sizer.job.read import Job
from zero_sizer.job.statements import NONE_GIVEN
from zero_sizer.util.files import existing
from zero_sizer.util.records import dataclass

_MADE_UP = ("optimizer.params.lr", "optimizer.params.weight_decay", "gradient_clipping")
_MISSING = object()


@dataclass(frozen=True, kw_only=True)
class Edit:
    """One key that the chosen config says otherwise than the user's.

    Attributes:
        key: dotted.
        before: what the user wrote; None where nothing.
        after: what it says now; None where it is gone.
        why: one clause.
    """

    key: str
    before: Any
    after: Any
    why: str


def chosen_values(search: Search, winner: Candidate) -> dict[str, Any]:
    """The DeepSpeed config of the plan to run."""
    return dict(search.job_of(winner).document.values)


def edits(search: Search, winner: Candidate) -> list[Edit]:
    """Every key that differs from the user's config; all of them where there was none."""
    job = search.job
    is_new = job.origins.get("deepspeed") == NONE_GIVEN
    before = {} if is_new else dict(from_mapping(job.document.values).leaves())
    after = dict(from_mapping(chosen_values(search, winner)).leaves())
    found = []
    for key in dict.fromkeys((*before, *after)):
        old, new = before.get(key, _MISSING), after.get(key, _MISSING)
        if old != new:
            found.append(
                Edit(
                    key=key,
                    before=None if old is _MISSING else old,
                    after=None if new is _MISSING else new,
                    why=_why(key, winner, is_gone=new is _MISSING),
                )
            )
    return found


def tuned(search: Search, plan: Candidate) -> list[Edit]:
    """Edits that neither the strategy's name nor the batch says."""
    said = {f"{ZERO}.{key}" for key in plan.setting.keys}
    found = edits(search, plan)
    return [edit for edit in found if edit.key in said or (edit.after is None and edit.before)]


def _why(key: str, winner: Candidate, *, is_gone: bool) -> str:
    name = key.removeprefix(ZERO + ".")
    if key in batch.KEYS:
        return "the batch and its accumulation follow from the other two" if is_gone else "chosen"
    if key in _MADE_UP:
        return "made up: no config was given, set your own"
    if is_gone:
        return f"has no place in {winner.strategy.name}"
    if name in winner.setting.keys:
        return "fits with it, or is faster"
    if key.startswith(ZERO):
        return f"{winner.strategy.name}"
    return "no config was given"


def job_values(choice: Choice, winner: Candidate, model: Any) -> dict[str, Any]:
    """The job as ``check`` reads it from a YAML, which may lie elsewhere than CONFIG.

    Args:
        choice: what was chosen.
        winner: its plan.
        model: what ``--model`` said, or None.
    """
    job = choice.search.job_of(winner)
    said = choice.search.job.said
    found: dict[str, Any] = {"model": model or (_whole(said.model.value) if said.model else None)}
    found["deepspeed"] = dict(job.document.values)
    found["cluster"] = dict(_cluster(job))
    found["workload"] = dict(_workload(job))
    if "freeze" in said.workload:
        found["workload"]["freeze"] = list(said.workload["freeze"].value)
    elif job.model.freeze is not None:  # what another tool's file says in its own words
        found["workload"]["freeze"] = list(job.model.freeze.patterns)
    if said.adapter is not None:
        found["adapter"] = _whole(said.adapter.value)
    if said.quantization is not None:
        found["quantization"] = said.quantization.value
    return found


def _whole(value: Any) -> Any:
    """A path made absolute; anything else as it is."""
    path = existing(value) if isinstance(value, str) and os.sep in value else None
    return value if path is None else os.path.abspath(path)


def _cluster(job: Job) -> Iterator[tuple[str, Any]]:
    cluster = job.cluster
    yield "nodes", cluster.nodes
    yield "gpus_per_node", cluster.gpus_per_node
    if cluster.gpu is not None:
        yield "gpu", cluster.gpu.name
        if cluster.gpu_memory != cluster.gpu.visible_bytes:
            yield "gpu_memory", cluster.gpu_memory
    for name in ("host_memory", "nvme"):
        if getattr(cluster, name) is not None:
            yield name, getattr(cluster, name)
    yield from cluster.rates.items()


def _workload(job: Job) -> Iterator[tuple[str, Any]]:
    workload = job.workload
    for name in (field.name for field in fields(workload)):
        value = getattr(workload, name)
        if name == "checkpointing":
            yield name, (value and workload.checkpointing_how.about) or value
        elif name == "precision":
            if value is not None and _leaves_precision(job):
                yield name, value
        elif name not in ("origins", "checkpointing_how") and value is not None:
            yield name, value


def _leaves_precision(job: Job) -> bool:
    """Whether the config leaves it to the Trainer's arguments."""
    return any(job.document.get(f"{name}.enabled") == "auto" for name in ("bf16", "fp16"))
