"""The classes DeepSpeed wraps around an optimizer."""

from enum import Enum

from zero_sizer.units import DType


class Wrapper(Enum):
    """Class in charge of weights, gradients and optimizer (engine.py:2294-2369)."""

    NONE = "none"  # stage 0, fp32 or torch_autocast: the optimizer itself
    FP16_FUSED = "FP16_Optimizer"
    FP16_UNFUSED = "FP16_UnfusedOptimizer"
    BF16 = "BF16_Optimizer"
    ZERO12 = "DeepSpeedZeroOptimizer"
    ZERO3 = "DeepSpeedZeroOptimizer_Stage3"


def wrapper_of(
    stage: int, model: DType, grad_accum: DType, *, offloads_to_cpu: bool, is_fused: bool
) -> Wrapper:
    """Class that the engine builds around an optimizer (engine.py:2294-2369).

    Args:
        stage: of ZeRO.
        model: dtype of the weights.
        grad_accum: dtype in which gradients accumulate.
        offloads_to_cpu: ``offload_optimizer.device`` is ``cpu``.
        is_fused: the optimizer is FusedAdam.
    """
    if stage == 3:
        return Wrapper.ZERO3
    if stage:
        accumulates_fp32 = model is DType.BF16 and grad_accum is DType.FP32
        is_bf16 = stage == 1 and accumulates_fp32 and not offloads_to_cpu
        return Wrapper.BF16 if is_bf16 else Wrapper.ZERO12
    if model is DType.FP32:
        return Wrapper.NONE
    return Wrapper.FP16_FUSED if is_fused else Wrapper.FP16_UNFUSED
