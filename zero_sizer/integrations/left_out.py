"""Losses that a trainer computes itself, and models that it keeps: in no prediction."""

from collections.abc import Iterator
from typing import Any

from transformers import Trainer

from zero_sizer.findings import Finding, Severity
from zero_sizer.job.readers import facts
from zero_sizer.job.readers.trainer import LOSS_IN_CHUNKS
from zero_sizer.units import format_gib

_SFT = "SFTTrainer"
_TRL = "trl."
_OWN = ("compute_loss", "training_step")


def left_out(trainer: Any) -> Iterator[Finding]:
    """Findings about a trainer; none where it is transformers' own.

    Args:
        trainer: any, or None.
    """
    kind = type(trainer)
    owners = {name: _owner(kind, name) for name in _OWN if hasattr(kind, name)}
    of_trl = [base for base in kind.__mro__ if base.__module__.startswith(_TRL)]
    loss = owners.get("compute_loss")
    if of_trl and of_trl[0].__name__ == _SFT and loss is of_trl[0]:
        yield LOSS_IN_CHUNKS
    elif of_trl:
        said = f"{kind.__name__} computes a loss of its own{_beside(trainer)}"
        yield facts.own_loss(f"{said}: none of it is in the prediction")
    elif any(issubclass(kind, Trainer) and _is_own(owner) for owner in owners.values()):
        yield Finding(
            code=facts.OWN_LOSS,
            severity=Severity.NOTE,
            message=f"{kind.__name__} computes a loss of its own: the model's is predicted",
        )


def _owner(kind: type, name: str) -> type:
    """The class that defines a method."""
    return next(base for base in kind.__mro__ if name in vars(base))


def _is_own(owner: type) -> bool:
    return not owner.__module__.startswith("transformers.")


def _beside(trainer: Any) -> str:
    """Models that are kept beside the one that is trained, with their size on this rank."""
    words = []
    for name, about in (("ref_model", "a reference model"), ("reward_funcs", "reward models")):
        models = getattr(trainer, name, None)
        listed = models if isinstance(models, list | tuple) else [models]
        size = sum(map(_num_bytes, listed))
        if size:
            words.append(f"{about} of {format_gib(size)} on this rank")
    if hasattr(trainer, "generation_config"):
        words.append("answers that it generates")
    return f", beside {' and '.join(words)}" if words else ""


def _num_bytes(model: Any) -> int:
    """Bytes of a model's weights on this rank: of partitioned ones its own part."""
    if not hasattr(model, "parameters"):
        return 0
    held = (getattr(weight, "ds_tensor", weight) for weight in model.parameters())
    return sum(weight.numel() * weight.element_size() for weight in held)
