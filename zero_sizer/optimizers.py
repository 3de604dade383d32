"""The table of optimizers: which state tensors each keeps per element, and what its step needs.

Sources: deepspeed 0.19.8 runtime/engine.py:2476-2570 (which class a config builds), and the class
named in each row; torch 2.13 torch/optim.
"""

from dataclasses import dataclass
from enum import Enum


class StateType(Enum):
    """Which dtype a state tensor has."""

    FP32 = "fp32"
    MOMENTS = "moments"  # fp32, or 16-bit with bf16_optimizer_states / fp32_optimizer_states: false
    GRADIENT = "gradient"  # the dtype of the gradient the optimizer is handed
    INT8 = "int8"  # block-quantised moments


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """One optimizer class.

    Attributes:
        name: class name as DeepSpeed logs it.
        states: state tensor name -> dtype rule; each has as many elements as the parameter.
        has_step_tensor: keeps a 4-byte ``step`` tensor per parameter tensor.
        step_copies: fp32 temporaries of ``step()`` in elements per element (torch's foreach loop
            materialises the denominator).
        is_loop: ``step()`` goes tensor by tensor, so its temporaries are one tensor's.
        host_copies: the same of torch's for-loop, which is what runs on host memory.
        states_at_init: states exist before the first step.
        is_fused_adam: FP16_Optimizer instead of FP16_UnfusedOptimizer at stage 0.
        zero_supported: ZeRO takes it without ``zero_allow_untested_optimizer``.
        on_host: runs on host memory (optimizer offload).
        source: where the class is.
    """

    name: str
    states: dict[str, StateType]
    has_step_tensor: bool = False
    step_copies: int = 0
    is_loop: bool = False
    host_copies: int = 0
    states_at_init: bool = False
    is_fused_adam: bool = False
    zero_supported: bool = True
    on_host: bool = False
    source: str


_ADAM = {"exp_avg": StateType.MOMENTS, "exp_avg_sq": StateType.MOMENTS}
_TORCH_ADAM = {"exp_avg": StateType.FP32, "exp_avg_sq": StateType.FP32}

FUSED_ADAM = Optimizer(
    name="FusedAdam",
    states=_TORCH_ADAM,
    is_fused_adam=True,
    source="deepspeed/ops/adam/fused_adam.py",
)
CPU_ADAM = Optimizer(
    name="DeepSpeedCPUAdam",
    states=_ADAM,
    on_host=True,
    source="deepspeed/ops/adam/cpu_adam.py:161-164",
)
TORCH_ADAM = Optimizer(
    name="AdamW (torch)",
    states=_TORCH_ADAM,
    has_step_tensor=True,
    step_copies=1,
    host_copies=2,
    source="torch/optim/adam.py:_multi_tensor_adam",
)
TORCH_ADAM_LOOP = Optimizer(
    name="AdamW (torch, for-loop)",
    states=_TORCH_ADAM,
    has_step_tensor=True,
    step_copies=2,  # the square root, and the denominator made of it
    is_loop=True,
    host_copies=2,
    source="torch/optim/adam.py:_single_tensor_adam",
)
TORCH_ADAM_FUSED = Optimizer(
    name="AdamW (torch, fused)",
    states=_TORCH_ADAM,
    has_step_tensor=True,
    source="torch/optim/adam.py:_fused_adam",
)
ADAM_8BIT = Optimizer(
    name="AdamW8bit (bitsandbytes)",
    states={"state1": StateType.INT8, "state2": StateType.INT8},
    zero_supported=False,
    source="bitsandbytes/optim/optimizer.py:Optimizer2State",
)
LAMB = Optimizer(
    name="FusedLamb",
    states=_TORCH_ADAM,
    zero_supported=False,
    source="deepspeed/ops/lamb/fused_lamb.py",
)
LION = Optimizer(
    name="FusedLion", states={"exp_avg": StateType.FP32}, source="deepspeed/ops/lion/fused_lion.py"
)
CPU_LION = Optimizer(
    name="DeepSpeedCPULion",
    states=_TORCH_ADAM,  # allocates exp_avg_sq too, unlike the paper
    on_host=True,
    source="deepspeed/ops/lion/cpu_lion.py",
)
ADAGRAD = Optimizer(
    name="Adagrad (torch)",
    states={"sum": StateType.FP32},
    has_step_tensor=True,
    step_copies=2,  # the denominator, and the gradient times the learning rate
    states_at_init=True,
    source="torch/optim/adagrad.py:__init__",
)
CPU_ADAGRAD = Optimizer(
    name="DeepSpeedCPUAdagrad",
    states={"exp_avg_sq": StateType.FP32},
    on_host=True,
    source="deepspeed/ops/adagrad/cpu_adagrad.py",
)
SGD = Optimizer(name="SGD", states={}, zero_supported=False, source="torch/optim/sgd.py")
SGD_MOMENTUM = Optimizer(
    name="SGD with momentum",
    states={"momentum_buffer": StateType.FP32},
    zero_supported=False,
    source="torch/optim/sgd.py",
)
RMSPROP = Optimizer(
    name="RMSprop",
    states={"square_avg": StateType.FP32},
    has_step_tensor=True,
    step_copies=1,
    host_copies=1,
    zero_supported=False,
    source="torch/optim/rmsprop.py",
)
MUON = Optimizer(
    name="MuonWithAuxAdam",
    states={"momentum_buffer": StateType.GRADIENT},
    source="deepspeed/runtime/zero/muon/muon_optimizer.py",
)
"""Muon's own groups; its other parameters (embeddings, head, 1-D) take the Adam row."""
