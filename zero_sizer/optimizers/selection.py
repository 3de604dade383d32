"""Which optimizer class a config builds (deepspeed 0.19.8 runtime/engine.py:2476-2570)."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from zero_sizer.models.spec import ModelSpec, Tensor
from zero_sizer.optimizers import table
from zero_sizer.optimizers import torch as torch_optimizers
from zero_sizer.optimizers.table import Optimizer
from zero_sizer.util.records import dataclass

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
_NOT_DECAYED = re.compile(r"bias|layernorm|rmsnorm|(?:^|\.)norm(?:$|\.)|_norm(?:$|\.)")


@dataclass(frozen=True, kw_only=True)
class Group:
    """One param group: a name, the optimizer row that handles it, its tensors.

    ``indices`` point into the model's parameters, in the order the optimizer holds them.
    """

    name: str
    optimizer: Optimizer
    indices: tuple[int, ...]


def trainer_optimizer(*, offloads: bool) -> Optimizer | None:
    """Optimizer that the Hugging Face Trainer brings where the config has no optimizer section.

    torch's fused AdamW (transformers 5.23 training_args.py:806), or DeepSpeedCPUAdam under
    optimizer offload, unless ``zero_force_ds_cpu_optimizer`` is off (accelerate 1.15
    accelerator.py:2376).
    """
    return table.CPU_ADAM if offloads else torch_optimizers.row("AdamW", {"fused": True})


def choose(name: str, params: Mapping[str, Any], *, offloads: bool) -> Optimizer | None:
    """The row for ``optimizer.type``; None when it is one these tables do not know."""
    built: Optimizer | str = _BUILT.get(name.lower(), name)
    if built is table.FUSED_ADAM and params.get("torch_adam"):
        return torch_optimizers.row(_torch_adam(name, params), params)
    if offloads:
        built = _OFFLOADED.get(name.lower(), built)
    if built is table.MUON:
        return replace(table.MUON, newton_schulz=params.get("ns_method", table.MUON.newton_schulz))
    return torch_optimizers.row(built, params) if isinstance(built, str) else built


def _torch_adam(name: str, params: Mapping[str, Any]) -> str:
    """Adam means AdamW too unless ``adam_w_mode`` is off (engine.py:2490)."""
    return "AdamW" if name.lower() == "adamw" or params.get("adam_w_mode", True) else "Adam"


def groups(
    row: Optimizer,
    params: Mapping[str, Any],
    spec: ModelSpec,
    *,
    offloads: bool,
    partitioned: bool = False,
) -> tuple[Group, ...]:
    """Param groups in the order the optimizer holds them; Muon splits its parameters in two.

    Muon takes matrices whose name holds neither ``embed`` nor ``lm_head``
    (deepspeed/__init__.py:365-372), the largest first unless ``zero.Init`` has ``partitioned``
    them, when all look alike; the rest go to Adam.
    """
    trainable = _trainable(spec)
    if not row.newton_schulz:
        return (Group(name="all", optimizer=row, indices=trainable),)
    tensors = spec.parameters
    adam = choose("adamw", params, offloads=offloads) or table.FUSED_ADAM
    matrices, others = _split(trainable, lambda i: _takes_muon(tensors[i]))
    if not partitioned:  # original_muon.py sorts by size
        matrices = tuple(sorted(matrices, key=lambda i: tensors[i].shape, reverse=True))
    found = (
        Group(name="muon-params", optimizer=row, indices=matrices),
        Group(name="adam-params", optimizer=adam, indices=others),
    )
    return tuple(group for group in found if group.indices)


def trainer_groups(row: Optimizer, spec: ModelSpec) -> tuple[Group, ...]:
    """The Trainer's: biases and norms are not decayed (transformers 5.23 trainer.py:1408)."""
    decayed, others = _split(_trainable(spec), lambda i: _is_decayed(spec.parameters[i]))
    found = (
        Group(name="decayed", optimizer=row, indices=decayed),
        Group(name="not decayed", optimizer=row, indices=others),
    )
    return tuple(group for group in found if group.indices) or found[:1]


def _trainable(spec: ModelSpec) -> tuple[int, ...]:
    return tuple(i for i, tensor in enumerate(spec.parameters) if tensor.trainable)


def _split(
    indices: tuple[int, ...], chosen: Callable[[int], bool]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    takes = {i: chosen(i) for i in indices}
    return tuple(i for i in indices if takes[i]), tuple(i for i in indices if not takes[i])


def _is_decayed(tensor: Tensor) -> bool:
    return tensor.module_type != "LayerNorm" and not _NOT_DECAYED.search(tensor.name.lower())


def _takes_muon(tensor: Tensor) -> bool:
    name = tensor.name.lower()
    return len(tensor.shape) >= 2 and "embed" not in name and "lm_head" not in name
