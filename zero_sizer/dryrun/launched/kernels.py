"""Adam without a compiler: DeepSpeed's own optimizer classes over kernels written in torch.

DeepSpeed compiles the kernels of FusedAdam, DeepSpeedCPUAdam, DeepSpeedCPULion and their kin at
first use, which takes minutes and a C++ compiler. The kernels only update in place; states,
masters and gradients are allocated by the Python classes, which stay DeepSpeed's. So a run that is
about memory may replace the kernels. Temporaries are kept to one small chunk, as kernels keep
them in registers.
"""

import math
from collections.abc import Callable, Iterator
from functools import wraps
from types import SimpleNamespace
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

_CHUNK = 1 << 16  # elements updated at once


def install() -> tuple[str, ...]:
    """Hand DeepSpeed these kernels instead of compiling its own; returns their names."""
    from deepspeed.ops.op_builder.builder import OpBuilder

    kernels = {
        "fused_adam": SimpleNamespace(multi_tensor_adam=multi_tensor_adam),
        "cpu_adam": _CpuAdam(),
        "cpu_lion": _CpuLion(),
        "cpu_adagrad": _CpuAdagrad(),
    }
    for name, kernel in kernels.items():
        OpBuilder._loaded_ops.setdefault(name, kernel)
    # The CPU accelerator has no builder for FusedLion at all.
    from deepspeed.ops.lion import fused_lion

    lion = SimpleNamespace(multi_tensor_lion=multi_tensor_lion)
    fused_lion.FusedLionBuilder = lambda: SimpleNamespace(load=lambda: lion)
    return (*kernels, "fused_lion")


def _chunks(*tensors: Any) -> Iterator[list[Any]]:
    param, grad, *states = tensors
    # Views, so that the update lands; a gradient is only read and may be a copy.
    flat = [param.view(-1), grad.reshape(-1), *(state.view(-1) for state in states)]
    for start in range(0, flat[0].numel(), _CHUNK):
        yield [tensor[start : start + _CHUNK] for tensor in flat]


def _unwatched(update: Callable[..., None]) -> Callable[..., None]:
    """Without autograd, and out of sight of a ``StorageWatch``: a kernel allocates no tensors."""

    @wraps(update)
    def run(*args: Any, **kwargs: Any) -> None:
        with torch.no_grad(), _disable_current_modes():
            update(*args, **kwargs)

    return run


@_unwatched
def _adam(
    tensors: tuple[Any, Any, Any, Any], settings: dict[str, float], *, adamw: bool, step: int
) -> None:
    beta1, beta2 = settings["beta1"], settings["beta2"]
    corrected = settings["bias_correction"]
    scale = 1 - beta1**step if corrected else 1.0
    root = math.sqrt(1 - beta2**step) if corrected else 1.0
    lr, decay = settings["lr"], settings["weight_decay"]
    for param, grad, exp_avg, exp_avg_sq in _chunks(*tensors):
        update = grad.float()
        value = param.float()
        if decay and not adamw:
            update = update + decay * value
        exp_avg.mul_(beta1).add_(update.to(exp_avg.dtype), alpha=1 - beta1)
        exp_avg_sq.mul_(beta2).add_((update * update).to(exp_avg_sq.dtype), alpha=1 - beta2)
        change = exp_avg.float() / (exp_avg_sq.float().sqrt() / root + settings["eps"])
        if decay and adamw:
            value = value * (1 - lr * decay)
        param.copy_(value - lr / scale * change)


def multi_tensor_adam(
    chunk_size: int, noop: Any, lists: list[list[Any]], lr: float, *rest: Any
) -> None:
    """FusedAdam's kernel: ``lists`` are gradients, parameters, exp_avg and exp_avg_sq."""
    beta1, beta2, eps, step, mode, bias_correction, weight_decay = rest
    settings = {
        "lr": lr,
        "beta1": beta1,
        "beta2": beta2,
        "eps": eps,
        "weight_decay": weight_decay,
        "bias_correction": bias_correction,
    }
    for grad, param, exp_avg, exp_avg_sq in zip(*lists, strict=True):
        _adam((param, grad, exp_avg, exp_avg_sq), settings, adamw=mode == 1, step=step)


class _CpuAdam:
    """DeepSpeedCPUAdam's kernel module."""

    def __init__(self) -> None:
        self._adamw: dict[int, bool] = {}

    def create_adam(self, opt_id: int, *settings: Any) -> None:
        """Remember the mode; the other settings come with each update."""
        self._adamw[opt_id] = bool(settings[5])

    def destroy_adam(self, opt_id: int) -> None:
        """Forget an optimizer."""
        self._adamw.pop(opt_id, None)

    def adam_update(self, opt_id: int, step: int, *rest: Any) -> None:
        """One step over one tensor."""
        names = ("lr", "beta1", "beta2", "eps", "weight_decay", "bias_correction")
        settings = dict(zip(names, rest[:6], strict=True))
        _adam(tuple(rest[6:10]), settings, adamw=self._adamw[opt_id], step=step)


@_unwatched
def _lion(
    tensors: tuple[Any, Any, Any], lr: float, betas: tuple[float, float], decay: float
) -> None:
    for param, grad, exp_avg in _chunks(*tensors):
        update = grad.float()
        direction = (exp_avg.float() * betas[0] + update * (1 - betas[0])).sign()
        param.copy_(param.float() * (1 - lr * decay) - lr * direction)
        exp_avg.mul_(betas[1]).add_(update.to(exp_avg.dtype), alpha=1 - betas[1])


def multi_tensor_lion(
    chunk_size: int, noop: Any, lists: list[list[Any]], lr: float, *rest: Any
) -> None:
    """FusedLion's kernel: ``lists`` are gradients, parameters and exp_avg."""
    beta1, beta2, _step, weight_decay = rest[:4]
    for grad, param, exp_avg in zip(*lists, strict=True):
        _lion((param, grad, exp_avg), lr, (beta1, beta2), weight_decay)


class _CpuLion:
    """DeepSpeedCPULion's kernel module."""

    def create_lion(self, *settings: Any) -> None:
        """Nothing to keep: every setting comes with each update."""

    def destroy_lion(self, opt_id: int) -> None:
        """Nothing was kept."""

    def lion_update(self, opt_id: int, step: int, *rest: Any) -> None:
        """One step over one tensor."""
        lr, beta1, beta2, weight_decay, param, grad, exp_avg = rest[:7]
        _lion((param, grad, exp_avg), lr, (beta1, beta2), weight_decay)


class _CpuAdagrad:
    """DeepSpeedCPUAdagrad's kernel module."""

    def create_adagrad(self, *settings: Any) -> None:
        """Nothing to keep: every setting comes with each update."""

    def destroy_adagrad(self, opt_id: int) -> None:
        """Nothing was kept."""

    @_unwatched
    def adagrad_update(self, opt_id: int, step: int, *rest: Any) -> None:
        """One step over one tensor."""
        lr, eps, decay, *tensors = rest[:6]
        for param, grad, square in _chunks(*tensors):
            update = grad.float() + decay * param.float()
            square.add_((update * update).to(square.dtype))
            param.copy_(param.float() - lr * update / (square.float().sqrt() + eps))
