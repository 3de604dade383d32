"""Which optimizer class a config builds (deepspeed 0.19.8 runtime/engine.py:2476-2570)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zero_sizer import optimizers as table
from zero_sizer import torch_optimizers
from zero_sizer.models.spec import ModelSpec, Tensor
from zero_sizer.optimizers import Optimizer

# Name -> DeepSpeed's own class, or the name of torch's.
_BUILT: Mapping[str, Optimizer | str] = {
    "adam": table.FUSED_ADAM,
    "adamw": table.FUSED_ADAM,
    "lamb": table.LAMB,
    "lion": table.LION,
    "muon": table.MUON,
    "adagrad": "Adagrad",
    "muadam": "Adam",
    "muadamw": "AdamW",
    "musgd": "SGD",
}
_OFFLOADED = {
    "adam": table.CPU_ADAM,
    "adamw": table.CPU_ADAM,
    "lion": table.CPU_LION,
    "adagrad": table.CPU_ADAGRAD,
}


@dataclass(frozen=True, kw_only=True)
class Group:
    """One param group: a name, the optimizer row that handles it, its tensors.

    ``indices`` point into the model's parameters, in the order the optimizer holds them.
    """

    name: str
    optimizer: Optimizer
    indices: tuple[int, ...]


def choose(name: str | None, params: Mapping[str, Any], *, offloads: bool) -> Optimizer | None:
    """The row for ``optimizer.type``; None when it is one these tables do not know.

    Without an optimizer section the Hugging Face Trainer brings torch's fused AdamW
    (transformers 5.23 training_args.py:806), or DeepSpeedCPUAdam under optimizer offload.
    """
    if name is None:
        return table.CPU_ADAM if offloads else torch_optimizers.row("AdamW", {"fused": True})
    built: Optimizer | str = _BUILT.get(name.lower(), name)
    if built is table.FUSED_ADAM and params.get("torch_adam"):
        return torch_optimizers.row(_torch_adam(name, params), params)
    if offloads:
        built = _OFFLOADED.get(name.lower(), built)
    return torch_optimizers.row(built, params) if isinstance(built, str) else built


def _torch_adam(name: str, params: Mapping[str, Any]) -> str:
    """Adam means AdamW too unless ``adam_w_mode`` is off (engine.py:2490)."""
    return "AdamW" if name.lower() == "adamw" or params.get("adam_w_mode", True) else "Adam"


def groups(
    row: Optimizer, params: Mapping[str, Any], spec: ModelSpec, *, offloads: bool
) -> tuple[Group, ...]:
    """Param groups in the order the optimizer holds them; Muon splits its parameters in two.

    Muon takes matrices whose name holds neither ``embed`` nor ``lm_head``
    (deepspeed/__init__.py:365-372); the rest go to Adam.
    """
    tensors = spec.parameters
    trainable = [i for i, tensor in enumerate(tensors) if tensor.trainable]
    if row is not table.MUON:
        return (Group(name="all", optimizer=row, indices=tuple(trainable)),)
    adam = choose("adamw", params, offloads=offloads) or table.FUSED_ADAM
    matrices = [i for i in trainable if _takes_muon(tensors[i])]
    others = [i for i in trainable if not _takes_muon(tensors[i])]
    matrices.sort(key=lambda i: tensors[i].shape, reverse=True)  # muon_optimizer.py sorts by size
    found = (
        Group(name="muon-params", optimizer=row, indices=tuple(matrices)),
        Group(name="adam-params", optimizer=adam, indices=tuple(others)),
    )
    return tuple(group for group in found if group.indices)


def _takes_muon(tensor: Tensor) -> bool:
    name = tensor.name.lower()
    return len(tensor.shape) >= 2 and "embed" not in name and "lm_head" not in name
