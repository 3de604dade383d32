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


@dataclass(frozen=True)
class Built:
    """Classes that one ``optimizer.type`` stands for.

    Attributes:
        row: DeepSpeed's own class, or the name of torch's.
        on_host: the class under optimizer offload, where it is another.
        name: what the class is called where it is not the row.
    """

    row: Optimizer | str
    on_host: Optimizer | None = None
    name: str = ""

    @property
    def class_name(self) -> str:
        """Name of the class."""
        return self.name or (self.row if isinstance(self.row, str) else self.row.name)


BUILT: Mapping[str, Built] = {
    "adam": Built(table.FUSED_ADAM, table.CPU_ADAM),
    "adamw": Built(table.FUSED_ADAM, table.CPU_ADAM),
    "lamb": Built(table.LAMB),
    "lion": Built(table.LION, table.CPU_LION),
    "muon": Built(table.MUON),
    "adagrad": Built("Adagrad", table.CPU_ADAGRAD),
    "muadam": Built("Adam", name="MuAdam"),
    "muadamw": Built("AdamW", name="MuAdamW"),
    "musgd": Built("SGD", name="MuSGD"),
}
"""``optimizer.type`` in small letters -> what DeepSpeed builds; any other name is torch's."""
_NOT_DECAYED = re.compile(r"bias|layernorm|rmsnorm|(?:^|\.)norm(?:$|\.)|_norm(?:$|\.)")
_TYPES = {"adam": "AdamW"}  # what people write where two types share a class


@dataclass(frozen=True, kw_only=True)
class Group:
    """One param group: a name, the optimizer row that handles it, its tensors.

    ``indices`` point into the model's parameters, in the order the optimizer holds them.
    """

    name: str
    optimizer: Optimizer
    indices: tuple[int, ...]


def type_of_class(name: str) -> str:
    """The ``optimizer.type`` of which DeepSpeed makes a class of its own; empty for any other."""
    for kind, built in BUILT.items():
        rows = [row for row in (built.row, built.on_host) if isinstance(row, table.Optimizer)]
        if name in {row.name for row in rows}:
            return _TYPES.get(kind, kind.capitalize())
    return ""


def choose(name: str, params: Mapping[str, Any], *, offloads: bool) -> Optimizer | None:
    """The row for ``optimizer.type``; None when it is one these tables do not know."""
    known = BUILT.get(name.lower(), Built(name))
    if known.row is table.FUSED_ADAM and params.get("torch_adam"):
        return torch_optimizers.row(_torch_adam(name, params), params)
    built = known.on_host if offloads and known.on_host is not None else known.row
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
