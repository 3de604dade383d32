"""Which parameters torch_autocast casts, and in which dtype their gradients are reduced."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from zero_sizer.plan import sizes
from zero_sizer.plan.plan import Plan, derived
from zero_sizer.util.identity import Identity

if TYPE_CHECKING:
    from zero_sizer.models.spec import ModelSpec


_AUTOCAST_MODULES = {"Linear", "Conv1d", "Conv2d", "Conv3d"}


def outside_autocast(model: ModelSpec) -> frozenset[int]:
    """Trained tensors that no module of autocast's list owns (torch_autocast.py:15-25,57-60).

    A tied embedding is the head's too.
    """
    return _outside_autocast(Identity(model))


@lru_cache(maxsize=64)
def _outside_autocast(model: Identity) -> frozenset[int]:
    within, parameters = _within_autocast(model), model.of.parameters
    return frozenset(i for i, t in enumerate(parameters) if t.trainable and i not in within)


@lru_cache(maxsize=64)
def _within_autocast(model: Identity) -> frozenset[int]:
    arch = model.of.arch
    head = (arch.vocab,) if arch.tied_embeddings else None
    return frozenset(
        i
        for i, tensor in enumerate(model.of.parameters)
        if tensor.module_type in _AUTOCAST_MODULES or tensor.shape[:1] == head
    )


@derived
def communicated_apart(plan: Plan) -> frozenset[int]:
    """Tensors that autocast leaves in their dtype when gradients are reduced."""
    if plan.autocast_dtype in (None, sizes.trained_dtype(plan)):
        return frozenset()
    return outside_autocast(plan.model)
