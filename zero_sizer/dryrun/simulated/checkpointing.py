"""Activation checkpointing, switched on as a user's script does."""

from typing import Any

from zero_sizer.config.workload import DEEPSPEED, REENTRANT, Checkpointing
from zero_sizer.dryrun.task import Task
from zero_sizer.errors import UnsupportedError


def enable(model: Any, task: Task) -> None:
    """Switch it on for the blocks that are meant.

    Raises:
        UnsupportedError: the model has no switch for what is asked.
    """
    how = Checkpointing(**task.checkpointing_how)
    if how.by == DEEPSPEED:
        _configure_deepspeed(task)
        if hasattr(model, "_set_gradient_checkpointing"):
            _call_deepspeed(model, how)
        return  # any other model calls deepspeed.checkpointing.checkpoint itself
    _call_torch(model, how)
    if hasattr(model, "enable_input_require_grads") and hasattr(model, "peft_config"):
        model.enable_input_require_grads()


def _call_torch(model: Any, how: Checkpointing) -> None:
    settings: dict[str, Any] = {}
    if how.by == REENTRANT:
        settings["activation_checkpointing_kwargs"] = {"use_reentrant": True}
    if how.every > 1:
        settings["every_n_layers"] = how.every
    if how.offload:
        settings["offload"] = True
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable(**settings)
        _keep_first(model, how)
    elif hasattr(model, "gradient_checkpointing_enable") and not (settings or how.first):
        model.gradient_checkpointing_enable()
    elif hasattr(model, "enable_gradient_checkpointing") and not (settings or how.first):
        model.enable_gradient_checkpointing()  # of diffusers
    else:
        name = "activation" if settings or how.first else "gradient"
        raise UnsupportedError(
            f"the model has no {name}_checkpointing_enable()",
            remedy="let the factory return a model that checkpoints, and leave the option out",
        )


def _configure_deepspeed(task: Task) -> None:
    import deepspeed
    from deepspeed.accelerator import get_accelerator

    section = task.config.get("activation_checkpointing") or {}
    if get_accelerator().is_synchronized_device() and section.get("cpu_checkpointing"):
        # checkpointing.py:484-494: the copy is the original, which is emptied next
        raise UnsupportedError(
            "cpu_checkpointing loses its inputs in DeepSpeed where the device is the CPU itself",
            remedy="ask the simulated dry run",
        )
    deepspeed.checkpointing.configure(None, deepspeed_config=dict(task.config))


def _call_deepspeed(model: Any, how: Checkpointing) -> None:
    """A transformers model whose blocks go through ``deepspeed.checkpointing.checkpoint``."""
    import deepspeed

    model._set_gradient_checkpointing(
        enable=True,
        gradient_checkpointing_func=deepspeed.checkpointing.checkpoint,
        every_n_layers=how.every,
    )
    model.enable_input_require_grads()
    _keep_first(model, how)


def _keep_first(model: Any, how: Checkpointing) -> None:
    """Switch it off again behind the first blocks, for which transformers has no option."""
    if how.first is None:
        return
    from transformers import GradientCheckpointingLayer

    blocks = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    for block in blocks[how.first :]:
        block.gradient_checkpointing = False
