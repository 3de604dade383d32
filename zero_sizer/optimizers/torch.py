"""torch's optimizers: states, and what each implementation of a step materialises.

Source: torch 2.13 torch/optim; the temporaries are those of ``_multi_tensor_*`` (foreach) and
``_single_tensor_*`` (a loop over tensors). Before 2.0 AdamW was a loop.
"""

from collections.abc import Mapping
from dataclasses import field, replace
from typing import Any

from zero_sizer.optimizers.table import NOTHING, Optimizer, StateType, Temporaries
from zero_sizer.util.records import dataclass


@dataclass(frozen=True, kw_only=True)
class TorchOptimizer:
    """One class of torch.optim.

    Attributes:
        name: class name.
        states: of every configuration.
        option_states: option -> the state it adds.
        counters: 4-byte tensors per parameter tensor.
        counters_beside: they lie on the parameter's device.
        foreach: temporaries of the foreach step.
        loop: temporaries of the loop.
        foreach_copies: options that cost the foreach step one copy of the gradients more.
        loop_copies: options that cost the loop one more.
        has_fused: takes ``fused``, which materialises nothing.
        prefers_loop: loops unless told otherwise.
        states_at_init: makes its states in the constructor.
    """

    name: str
    states: dict[str, StateType]
    option_states: dict[str, str] = field(default_factory=dict)
    counters: int = 1
    counters_beside: bool = False
    foreach: Temporaries
    loop: Temporaries
    foreach_copies: tuple[str, ...] = ()
    loop_copies: tuple[str, ...] = ("weight_decay", "maximize")
    has_fused: bool = False
    prefers_loop: bool = False
    states_at_init: bool = False

    def configured(self, params: Mapping[str, Any]) -> Optimizer:
        """The row for these arguments of the constructor."""
        fused = self.has_fused and bool(params.get("fused"))
        foreach = _step(self.foreach, "all", self._copied(self.foreach_copies, params))
        loop = _step(self.loop, "updated", self._copied(self.loop_copies, params))
        takes_loop = params.get("foreach") is False or (
            self.prefers_loop and not params.get("foreach")
        )
        host_foreach = params.get("foreach") is True  # a host has no kernels that prefer it
        added = {n: StateType.MASTER for o, n in self.option_states.items() if params.get(o)}
        kind = ", fused" if fused else ", for-loop" if takes_loop else ""
        return Optimizer(
            name=f"{self.name} (torch{kind})",
            states={**self.states, **added},
            counters=self.counters,
            counters_beside=self.counters_beside or fused or bool(params.get("capturable")),
            step=NOTHING if fused else loop if takes_loop else foreach,
            host_step=NOTHING if fused else foreach if host_foreach else loop,
            states_at_init=self.states_at_init,
            source=f"torch/optim/{self.name.lower()}.py",
        )

    def _copied(self, options: tuple[str, ...], params: Mapping[str, Any]) -> bool:
        decoupled = bool(params.get("decoupled_weight_decay"))
        return any(params.get(o) and not (decoupled and o == "weight_decay") for o in options)


def _step(base: Temporaries, what: str, copies: bool) -> Temporaries:
    return replace(base, **{what: getattr(base, what) + 1}) if copies else base


def _moments(*names: str) -> dict[str, StateType]:
    return dict.fromkeys(names, StateType.MASTER)


_BOTH = ("weight_decay", "maximize")
_ADAM = TorchOptimizer(
    name="Adam",
    states=_moments("exp_avg", "exp_avg_sq"),
    option_states={"amsgrad": "max_exp_avg_sq"},
    foreach=Temporaries(all=1),  # the square root; gradients that were copied are gone by then
    loop=Temporaries(updated=2, previous=1),  # the root, and the denominator made of it
    has_fused=True,
)
_SGD = TorchOptimizer(
    name="SGD",
    states={},
    option_states={"momentum": "momentum_buffer"},
    counters=0,
    foreach=NOTHING,
    loop=NOTHING,
    foreach_copies=_BOTH,
    has_fused=True,
)
_TABLE = {
    row.name: row
    for row in (
        _ADAM,
        replace(_ADAM, name="AdamW", loop_copies=("maximize",)),
        TorchOptimizer(
            name="NAdam",
            states=_moments("exp_avg", "exp_avg_sq"),
            counters=2,  # step and mu_product
            foreach=Temporaries(all=1),
            loop=Temporaries(updated=2, previous=1),
            foreach_copies=_BOTH,
        ),
        TorchOptimizer(
            name="RAdam",
            states=_moments("exp_avg", "exp_avg_sq"),
            foreach=Temporaries(all=1),
            loop=Temporaries(updated=2),
        ),
        TorchOptimizer(
            name="Adamax",
            states=_moments("exp_avg", "exp_inf"),
            foreach=Temporaries(all=1),
            loop=Temporaries(updated=1),
        ),
        TorchOptimizer(
            name="Adadelta",
            states=_moments("square_avg", "acc_delta"),
            foreach=Temporaries(all=2),
            loop=Temporaries(updated=2, previous=1),
            foreach_copies=_BOTH,
        ),
        TorchOptimizer(
            name="Adagrad",
            states=_moments("sum"),
            foreach=Temporaries(all=2),  # the denominator, and the gradient times the rate
            loop=Temporaries(updated=1, previous=1),
            has_fused=True,
            states_at_init=True,
        ),
        TorchOptimizer(
            name="ASGD",
            states=_moments("ax"),
            counters=3,  # step, eta and mu
            counters_beside=True,
            foreach=Temporaries(all=1),
            loop=NOTHING,
            foreach_copies=("maximize",),
        ),
        TorchOptimizer(
            name="Adafactor",
            states={"variance": StateType.FACTORED},
            foreach=Temporaries(all=1),
            loop=Temporaries(updated=1, previous=1, updated_vector=1),
            foreach_copies=("maximize",),
            loop_copies=("maximize",),
            prefers_loop=True,
        ),
        TorchOptimizer(
            name="RMSprop",
            states=_moments("square_avg"),
            option_states={"momentum": "momentum_buffer", "centered": "grad_avg"},
            foreach=Temporaries(all=1),
            loop=Temporaries(updated=1, previous=1),
            foreach_copies=_BOTH,
        ),
        TorchOptimizer(
            name="Rprop",
            states=_moments("prev", "step_size"),
            foreach=Temporaries(all=1, updated=1, mask_of_updated=1),
            loop=Temporaries(updated=3),
            loop_copies=(),
        ),
        _SGD,
    )
}


def row(name: str, params: Mapping[str, Any]) -> Optimizer | None:
    """The row of ``torch.optim.NAME(**params)``; None for a class that DeepSpeed cannot step.

    LBFGS wants a closure, SparseAdam sparse gradients.
    """
    found = _TABLE.get(name)
    if found is _SGD and params.get("momentum") and params.get("nesterov"):
        found = replace(found, loop=Temporaries(updated=1))
    return found.configured(params) if found else None
