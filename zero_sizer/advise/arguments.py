"""The TrainingArguments that a chosen plan requires.

The Trainer compares them with the config and stops where they differ (transformers 5.23
``integrations/deepspeed.py``, ``trainer_config_process`` and ``trainer_config_finalize``).
"""

from collections.abc import Iterator
from typing import Any

from zero_sizer.config.document import from_mapping
from zero_sizer.config.workload import (
    DEEPSPEED,
    LIGER_KERNELS,
    NON_REENTRANT,
    REENTRANT,
    Checkpointing,
    Workload,
)
from zero_sizer.job.read import Job

# key of the config -> argument; "auto" takes what the argument says, which is then the user's
_COMPARED = {
    "train_micro_batch_size_per_gpu": "per_device_train_batch_size",
    "gradient_accumulation_steps": "gradient_accumulation_steps",
    "gradient_clipping": "max_grad_norm",
    "scheduler.params.warmup_max_lr": "learning_rate",
    "optimizer.params.lr": "learning_rate",
    "optimizer.params.eps": "adam_epsilon",
    "optimizer.params.weight_decay": "weight_decay",
    "scheduler.params.total_num_steps": "max_steps",
    "scheduler.params.warmup_num_steps": "warmup_steps",
}
_BETAS = "optimizer.params.betas"


def training_arguments(job: Job, config: str) -> dict[str, Any]:
    """The arguments that must be so for a chosen job; everything else is the user's.

    Args:
        job: of a candidate (``Search.job_of``).
        config: path of its DeepSpeed config.
    """
    document = from_mapping(job.document.values)
    found: dict[str, Any] = {"deepspeed": config}
    for key, name in _COMPARED.items():
        value = document.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            found[name] = value
    betas = document.get(_BETAS)
    if isinstance(betas, list) and len(betas) == 2:
        found["adam_beta1"], found["adam_beta2"] = betas
    for name in ("bf16", "fp16"):
        enabled = document.get(f"{name}.enabled")
        if enabled is True or (enabled == "auto" and job.workload.precision == name):
            found[name] = True
    return found | dict(_of_workload(job.workload))


def unsaid(workload: Workload) -> tuple[str, ...]:
    """Requirements of a plan on the training code that no argument states."""
    how, found = workload.checkpointing_how, []
    if workload.checkpointing and _is_special(how):
        found.append(f"activation checkpointing {how.about}")
    if workload.attention is not None:
        found.append(f"attn_implementation of {workload.attention} attention")
    if workload.loss is not None:
        found.append(f"the loss of {workload.loss}")
    return tuple(found)


def _is_special(how: Checkpointing) -> bool:
    """Whether ``gradient_checkpointing_kwargs`` has no word for it (trainer.py:1501)."""
    return how.first is not None or how.by == DEEPSPEED


def _of_workload(workload: Workload) -> Iterator[tuple[str, Any]]:
    how = workload.checkpointing_how
    by_trainer = bool(workload.checkpointing) and not _is_special(how)
    if workload.checkpointing is not None:
        yield "gradient_checkpointing", by_trainer
    if by_trainer and how.by in (NON_REENTRANT, REENTRANT):
        yield "gradient_checkpointing_kwargs", dict(_kwargs(how))
    if workload.kernels == LIGER_KERNELS:
        yield "use_liger_kernel", True
    if workload.num_workers is not None:
        yield "dataloader_num_workers", workload.num_workers
        if workload.num_workers and workload.prefetch is not None:
            yield "dataloader_prefetch_factor", workload.prefetch


def _kwargs(how: Checkpointing) -> Iterator[tuple[str, Any]]:
    yield "use_reentrant", how.by == REENTRANT
    if how.every > 1:
        yield "every_n_layers", how.every
    if how.offload:
        yield "offload", True
