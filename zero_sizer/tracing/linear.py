"""The linear layer that ZeRO-3 puts in torch's place: it saves its input even where that is frozen.

Follows ``LinearFunctionForZeroStage3`` of deepspeed 0.19.8 (runtime/zero/linear.py:64), which
replaces ``torch.nn.functional.linear`` for the rest of the process unless
``memory_efficient_linear`` is false. torch's own saves no input whose weight needs no gradient.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from zero_sizer.simulator.undo import Patches


class _SavingLinear(torch.autograd.Function):  # type: ignore[misc]  # mypy does not follow torch
    @staticmethod
    def forward(inputs: Any, weight: Any, bias: Any = None) -> Any:
        if inputs.dim() == 2 and bias is not None:
            return torch.addmm(bias, inputs, weight.t())
        output = inputs.matmul(weight.t())
        if bias is not None:
            output += bias
        return output

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.autocasts = torch.is_autocast_enabled(output.device.type)
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> tuple[Any, Any, Any]:
        inputs, weight, bias = ctx.saved_tensors
        rows = gradient.reshape(-1, gradient.shape[-1])
        needs = ctx.needs_input_grad
        with torch.autocast(gradient.device.type, torch.bfloat16, enabled=ctx.autocasts):
            of_input = gradient.matmul(weight) if needs[0] else None
            of_weight = None
            if needs[1]:
                of_weight = rows.t().matmul(inputs.reshape(-1, inputs.shape[-1]))
            of_bias = rows.sum(0) if bias is not None and needs[2] else None
        return of_input, of_weight, of_bias


def _linear(inputs: Any, weight: Any, bias: Any = None) -> Any:
    return _SavingLinear.apply(inputs, weight, bias)


@contextmanager
def installed(*, is_on: bool = True) -> Iterator[None]:
    """Inside, ``torch.nn.functional.linear`` is ZeRO-3's, if ``is_on``."""
    changed = Patches()
    if is_on:
        changed.set(torch.nn.functional, "linear", _linear)
    try:
        yield
    finally:
        changed.undo()
