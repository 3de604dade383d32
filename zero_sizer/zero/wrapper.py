"""The classes DeepSpeed wraps around an optimizer."""

from enum import Enum


class Wrapper(Enum):
    """What is in charge of weights, gradients and optimizer (engine.py:2294-2369)."""

    NONE = "none"  # stage 0, fp32 or torch_autocast: the optimizer itself
    FP16_FUSED = "FP16_Optimizer"
    FP16_UNFUSED = "FP16_UnfusedOptimizer"
    BF16 = "BF16_Optimizer"
    ZERO12 = "DeepSpeedZeroOptimizer"
    ZERO3 = "DeepSpeedZeroOptimizer_Stage3"
