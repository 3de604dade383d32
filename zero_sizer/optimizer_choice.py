"""Which optimizer class a config builds (deepspeed 0.19.8 runtime/engine.py:2476-2570)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from zero_sizer import optimizers as table
from zero_sizer.models.spec import ModelSpec, Tensor
from zero_sizer.optimizers import Optimizer, StateType

_HOST = {
    table.FUSED_ADAM.name: table.CPU_ADAM,
    table.TORCH_ADAM_FUSED.name: table.CPU_ADAM,
    table.LION.name: table.CPU_LION,
    table.ADAGRAD.name: table.CPU_ADAGRAD,
}
_DEEPSPEED = {
    "adam": table.FUSED_ADAM,
    "adamw": table.FUSED_ADAM,
    "muadam": table.TORCH_ADAM,
    "muadamw": table.TORCH_ADAM,
    "lamb": table.LAMB,
    "lion": table.LION,
    "adagrad": table.ADAGRAD,
    "musgd": table.SGD,
    "muon": table.MUON,
}
_TORCH = {
    "Adam": table.TORCH_ADAM,
    "AdamW": table.TORCH_ADAM,
    "NAdam": table.TORCH_ADAM,
    "RAdam": table.TORCH_ADAM,
    "Adagrad": table.ADAGRAD,
    "SGD": table.SGD,
    "RMSprop": table.RMSPROP,
}
_OPTION_STATES = {  # source of a row -> option -> the state it adds
    table.TORCH_ADAM.source: {"amsgrad": "max_exp_avg_sq"},
    table.RMSPROP.source: {"momentum": "momentum_buffer", "centered": "grad_avg"},
}
_COPY_TO_DECAY = (table.SGD.source, table.RMSPROP.source)  # others free it before they need more


@dataclass(frozen=True, kw_only=True)
class Group:
    """One param group: a name, the optimizer row that handles it, its tensors.

    ``indices`` point into the model's parameters, in the order the optimizer holds them.
    """

    name: str
    optimizer: Optimizer
    indices: tuple[int, ...]


def choose(name: str | None, params: Mapping[str, Any], *, offloads: bool) -> Optimizer | None:
    """The row for ``optimizer.type``; None when it is one this table does not know.

    Without an optimizer section the Hugging Face Trainer brings torch's fused AdamW
    (transformers 5.23 training_args.py:806), or DeepSpeedCPUAdam under optimizer offload.
    """
    if name is None:
        row: Optimizer | None = table.TORCH_ADAM_FUSED
    elif name.lower() in _DEEPSPEED:
        row = _DEEPSPEED[name.lower()]
        if row is table.FUSED_ADAM and params.get("torch_adam"):
            return _with_options(_torch_adam(params), params)
    else:
        row = _TORCH.get(name)
    if row is table.TORCH_ADAM:
        row = _torch_adam(params)
    if row is table.SGD and params.get("momentum"):
        row = table.SGD_MOMENTUM
    if row is not None:
        row = _with_options(row, params)
    return _HOST.get(row.name, row) if row is not None and offloads else row


def _torch_adam(params: Mapping[str, Any]) -> Optimizer:
    """Which of torch's implementations runs: foreach where nothing is said (torch/optim/adam.py).

    Before torch 2.0 it was the for-loop.
    """
    if params.get("fused"):
        return table.TORCH_ADAM_FUSED
    return table.TORCH_ADAM_LOOP if params.get("foreach") is False else table.TORCH_ADAM


def _with_options(row: Optimizer, params: Mapping[str, Any]) -> Optimizer:
    """What options of torch's optimizers add: states, and the gradient with its decay."""
    states = {
        name: StateType.FP32
        for option, name in _OPTION_STATES.get(row.source, {}).items()
        if params.get(option)
    }
    decays = row.source in _COPY_TO_DECAY and bool(params.get("weight_decay"))
    if not states and not decays:
        return row
    return replace(
        row,
        states={**row.states, **states},
        step_copies=row.step_copies + decays,
        host_copies=row.host_copies + decays,
    )


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
