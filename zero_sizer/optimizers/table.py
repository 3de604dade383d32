"""Table of optimizers: what each keeps per element and makes in a step; DeepSpeed's own classes.

Sources: deepspeed 0.19.8 runtime/engine.py:2476-2570 (which class a config builds), and the class
named in each row. torch's optimizers are in ``torch_optimizers``.
"""

from dataclasses import field, replace
from enum import Enum

from zero_sizer.util.records import dataclass


class StateType(Enum):
    """Which dtype a state tensor has, and which shape where it is not the parameter's."""

    MASTER = "master"  # ``zeros_like`` of the tensor that is updated: its dtype
    MOMENTS = "moments"  # fp32, or the master's dtype where the class is told not to keep fp32
    GRADIENT = "gradient"  # the dtype of the gradient the optimizer is handed
    CODES = "codes"  # of 8 bits, of tensors that bitsandbytes quantizes
    STATISTICS = "statistics"  # fp32, one for each block of those
    UNQUANTIZED = "unquantized"  # fp32, of tensors that it finds too small
    FP32 = "fp32"  # whatever the master's dtype
    FACTORED = "factored"  # the master's dtype; of a matrix one number per row and one per column
    BLOCK_CODES = "block codes"  # of 8 bits, of tensors that torchao quantizes
    HALF_CODES = "half codes"  # of 4 bits, of those
    BLOCK_SCALES = "block scales"  # fp32, one for each block of 8 bits, and a table of each tensor
    HALF_SCALES = "half scales"  # fp32, one for each block of 4 bits, and a table of each tensor
    UNBLOCKED = "unblocked"  # the master's dtype, of tensors that are no whole blocks, or small
    HOST_COPY = "host copy"  # fp32, on the host wherever the parameter is


_OF_BITSANDBYTES = (StateType.CODES, StateType.STATISTICS, StateType.UNQUANTIZED)
_OF_8_BITS = (StateType.BLOCK_CODES, StateType.BLOCK_SCALES, StateType.UNBLOCKED)
_OF_4_BITS = (StateType.HALF_CODES, StateType.HALF_SCALES, StateType.UNBLOCKED)
QUANTIZED = frozenset({*_OF_BITSANDBYTES, *_OF_8_BITS, *_OF_4_BITS})
"""What states of 4 and 8 bits consist of."""


@dataclass(frozen=True, kw_only=True)
class Temporaries:
    """Tensors of the master's dtype that ``step()`` makes and drops, together at its highest.

    Attributes:
        all: as large as all tensors of the param group together (torch's foreach).
        updated: as large as the tensor that is being updated (a loop over tensors).
        previous: as large as the tensor before it, which a name of the loop still holds.
        updated_vector: as large as the tensor that is being updated unless it is a matrix.
        mask_of_updated: boolean, as large as the tensor that is being updated.
    """

    all: int = 0
    updated: int = 0
    previous: int = 0
    updated_vector: int = 0
    mask_of_updated: int = 0


NOTHING = Temporaries()


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """One optimizer class.

    Attributes:
        name: class name as DeepSpeed logs it.
        states: state tensor name -> dtype rule; each has as many elements as the parameter.
        counters: 4-byte tensors kept per parameter tensor (``step`` and the like).
        counters_beside: they lie where the parameter does, not on the host.
        step: temporaries of a step on the GPU.
        host_step: temporaries of a step on host memory.
        states_at_init: states exist before the first step.
        by_client: handed to DeepSpeed, made of the model's tensors before those are on the GPU.
        paged: large states lie in unified memory, which the driver moves between host and GPU.
        is_compiled: torch.compile makes the kernels of its step.
        newton_schulz: how Muon orthogonalises, ``gram`` or ``standard``; empty for all others.
        is_fused_adam: FP16_Optimizer instead of FP16_UnfusedOptimizer at stage 0.
        source: where the class is.
    """

    name: str
    states: dict[str, StateType]
    counters: int = 0
    counters_beside: bool = False
    step: Temporaries = field(default=NOTHING)
    host_step: Temporaries = field(default=NOTHING)
    states_at_init: bool = False
    by_client: bool = False
    paged: bool = False
    is_compiled: bool = False
    newton_schulz: str = ""
    is_fused_adam: bool = False
    source: str


_LIKE_MASTER = {"exp_avg": StateType.MASTER, "exp_avg_sq": StateType.MASTER}
_MOMENTS = {"exp_avg": StateType.MOMENTS, "exp_avg_sq": StateType.MOMENTS}

FUSED_ADAM = Optimizer(
    name="FusedAdam",
    states=_LIKE_MASTER,
    is_fused_adam=True,
    source="deepspeed/ops/adam/fused_adam.py:155-157",
)
CPU_ADAM = Optimizer(
    name="DeepSpeedCPUAdam", states=_MOMENTS, source="deepspeed/ops/adam/cpu_adam.py:158-164"
)
_BITSANDBYTES = "bitsandbytes 0.50.2 optim/optimizer.py:"


def _quantized(*names: str) -> dict[str, StateType]:
    """States of bitsandbytes in 8 bits, each of codes, their statistics, and what is too small."""
    ends = ("", "_absmax", "_unquantized")
    return {
        f"{n}{end}": kind for n in names for end, kind in zip(ends, _OF_BITSANDBYTES, strict=True)
    }


ADAM_8BIT = Optimizer(
    name="AdamW (bitsandbytes, 8 bits)",
    states=_quantized("state1", "state2"),
    source=_BITSANDBYTES + "492 (Optimizer2State.init_state)",
)
ADAM_32BIT = Optimizer(
    name="AdamW (bitsandbytes)",
    states={"state1": StateType.FP32, "state2": StateType.FP32},
    source=ADAM_8BIT.source,
)
LION_8BIT = Optimizer(
    name="Lion (bitsandbytes, 8 bits)",
    states=_quantized("state1"),
    source=_BITSANDBYTES + "665 (Optimizer1State.init_state)",
)
LION_32BIT = Optimizer(
    name="Lion (bitsandbytes)", states={"state1": StateType.FP32}, source=LION_8BIT.source
)
RMSPROP_8BIT = replace(LION_8BIT, name="RMSprop (bitsandbytes, 8 bits)")
RMSPROP_32BIT = replace(LION_32BIT, name="RMSprop (bitsandbytes)")
ADEMAMIX_8BIT = Optimizer(
    name="AdEMAMix (bitsandbytes, 8 bits)",
    states=_quantized("state1", "state1_slow", "state2"),  # state1 holds both averages
    source="bitsandbytes 0.50.2 optim/ademamix.py:AdEMAMix.init_state",
)
ADEMAMIX_32BIT = Optimizer(
    name="AdEMAMix (bitsandbytes)",
    states=dict.fromkeys(("state1", "state1_slow", "state2"), StateType.FP32),
    source=ADEMAMIX_8BIT.source,
)


def _blocked(kinds: tuple[StateType, ...], *names: str) -> dict[str, StateType]:
    """States of torchao, each of codes, their scales, and tensors that it leaves whole."""
    ends = ("codes", "scale", "whole")
    return {f"{n}_{end}": kind for n in names for end, kind in zip(ends, kinds, strict=True)}


TORCHAO_8BIT = Optimizer(
    name="AdamW8bit (torchao)",
    states=_blocked(_OF_8_BITS, "exp_avg", "exp_avg_sq"),
    counters=1,
    is_compiled=True,
    source="torchao 0.18.0 optim/adam.py:_AdamBase._new_buffer",
)
TORCHAO_4BIT = replace(
    TORCHAO_8BIT,
    name="AdamW4bit (torchao)",
    states=_blocked(_OF_4_BITS, "exp_avg", "exp_avg_sq"),
)
STABLE_ADAMW = Optimizer(
    name="StableAdamW (optimi)",
    states=_LIKE_MASTER,
    counters=1,  # eps_sq
    counters_beside=True,
    source="torch-optimi 0.3.3 optimi/stableadamw.py:StableAdamW._init_state",
)
GROKADAMW = Optimizer(
    name="GrokAdamW",
    states=dict.fromkeys(("exp_avg", "exp_avg_sq", "grok_ema"), StateType.HOST_COPY),
    # copies of all three, the changed gradient and a product; the changed gradient before it
    step=Temporaries(updated=5, previous=1),
    host_step=Temporaries(updated=2, previous=1),
    source="grokadamw 0.1.2 grokadamw.py:GrokAdamW._update_group",
)
ADAFACTOR = Optimizer(
    name="Adafactor (transformers)",
    states={"exp_avg_sq": StateType.FACTORED},
    counters=1,  # RMS
    counters_beside=True,
    step=Temporaries(updated=2, previous=1),  # the squared gradient, and with eps; the last update
    host_step=Temporaries(updated=2, previous=1),
    source="transformers/optimization.py:Adafactor.step",
)
SCHEDULE_FREE_ADAMW = Optimizer(
    name="AdamWScheduleFree",
    states={"z": StateType.MASTER, "exp_avg_sq": StateType.MASTER},
    step=Temporaries(all=1),  # the denominator
    host_step=Temporaries(all=1),
    source="schedulefree/adamw_schedulefree.py:step",
)
SCHEDULE_FREE_RADAM = replace(SCHEDULE_FREE_ADAMW, name="RAdamScheduleFree")
SCHEDULE_FREE_SGD = Optimizer(
    name="SGDScheduleFree",
    states={"z": StateType.MASTER},
    source="schedulefree/sgd_schedulefree.py:step",
)


def paged(row: Optimizer) -> Optimizer:
    """The row with large states in unified memory."""
    return replace(row, name=f"{row.name}, paged", paged=True)


LAMB = Optimizer(
    name="FusedLamb", states=_LIKE_MASTER, source="deepspeed/ops/lamb/fused_lamb.py:153-155"
)
LION = Optimizer(
    name="FusedLion",
    states={"exp_avg": StateType.MASTER},
    source="deepspeed/ops/lion/fused_lion.py:99",
)
CPU_LION = Optimizer(
    name="DeepSpeedCPULion",
    states=_MOMENTS,  # allocates exp_avg_sq too, unlike the paper
    source="deepspeed/ops/lion/cpu_lion.py:118-124",
)
CPU_ADAGRAD = Optimizer(
    name="DeepSpeedCPUAdagrad",
    states={"exp_avg_sq": StateType.MOMENTS},
    source="deepspeed/ops/adagrad/cpu_adagrad.py:82-86",
)
MUON = Optimizer(
    name="MuonWithAuxAdam",
    states={"momentum_buffer": StateType.GRADIENT},
    newton_schulz="gram",
    source="deepspeed/runtime/zero/muon/muon_optimizer.py",
)
"""Muon's own groups; its other parameters (embeddings, head, 1-D) take the Adam row."""
