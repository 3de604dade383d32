"""Classes that DeepSpeed's engine builds from a config: dtypes, optimizer class, wrapper.

Source: deepspeed 0.19.8 runtime/engine.py:2294-2369 (wrapper) and 2476-2550 (optimizer class).
"""

from zero_sizer.config.context import Context
from zero_sizer.units import DType
from zero_sizer.zero.wrapper import Wrapper, wrapper_of

DTYPES = {
    spelling: name
    for name, spellings in {
        "fp16": ("torch.float16", "fp16", "float16", "half"),
        "fp32": ("torch.float32", "fp32", "float32", "float"),
        "bf16": ("torch.bfloat16", "bf16", "bfloat16"),
        "int8": ("torch.int8", "int8"),
    }.items()
    for spelling in spellings
}
_DTYPES = {"fp16": DType.FP16, "bf16": DType.BF16, "fp32": DType.FP32, "int8": DType.INT8}
TORCH_OPTIMIZERS = (
    "ASGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "LBFGS",
    "Muon",
    "NAdam",
    "RAdam",
    "RMSprop",
    "Rprop",
    "SGD",
    "SparseAdam",
)
_ON_GPU = {
    "adam": "FusedAdam",
    "adamw": "FusedAdam",
    "adagrad": "Adagrad",
    "lamb": "FusedLamb",
    "lion": "FusedLion",
    "muon": "MuonWithAuxAdam",
    "muadam": "MuAdam",
    "muadamw": "MuAdamW",
    "musgd": "MuSGD",
}
_ON_HOST = {
    "FusedAdam": "DeepSpeedCPUAdam",
    "Adagrad": "DeepSpeedCPUAdagrad",
    "FusedLion": "DeepSpeedCPULion",
}


def model_dtype(context: Context) -> str:
    """``fp16``, ``bf16`` or ``fp32`` (torch_autocast keeps fp32 weights); "" if undecided.

    An "auto" that nothing stated decides stands as None in the settings.
    """
    for name in ("fp16", "bf16"):
        if context.flag(f"{name}.enabled"):
            return name
    switches = [context.value(f"{name}.enabled") for name in ("fp16", "bf16")]
    return "" if None in switches else "fp32"


def dtype_named(context: Context, key: str) -> str | None:
    """The dtype that ``key`` names: "" when it is left out, None when DeepSpeed knows none such."""
    value = context.value(key)
    if value is None:
        return ""
    return DTYPES.get(value) if isinstance(value, str) else None


def grad_accum_dtype(context: Context) -> str | None:
    """``data_types.grad_accum_dtype``, by default the model's; None when DeepSpeed refuses it."""
    named = dtype_named(context, "data_types.grad_accum_dtype")
    return model_dtype(context) if named == "" else named


def uses_bf16_optimizer(context: Context) -> bool:
    """Stage 1 with bf16 weights and fp32 accumulation gets BF16_Optimizer, not ZeRO's own."""
    model = _DTYPES.get(model_dtype(context))
    grad_accum = _DTYPES.get(grad_accum_dtype(context) or "")
    if model is None or grad_accum is None or context.stage not in (1, 2, 3):
        return False
    built = wrapper_of(
        context.stage,
        model,
        grad_accum,
        offloads_to_cpu=context.optimizer_device == "cpu",
        is_fused=False,
    )
    return built is Wrapper.BF16


def uses_zero12(context: Context) -> bool:
    """True if DeepSpeedZeroOptimizer (stages 1 and 2) is what gets built."""
    return context.stage in (1, 2) and not uses_bf16_optimizer(context)


def uses_zero(context: Context) -> bool:
    """True if one of the ZeRO optimizers is what gets built."""
    return uses_zero12(context) or context.stage == 3


def offloads_optimizer(context: Context) -> bool:
    """True if the config asks for optimizer offload, whatever comes of it."""
    return context.optimizer_device != "none"


def optimizer_class(context: Context) -> str:
    """Class of the optimizer in the config; "" when it names none or one that does not exist."""
    name = context.text("optimizer.type")
    built = _ON_GPU.get(name.lower())
    if built is None:
        return name if name in TORCH_OPTIMIZERS else ""
    if built == "FusedAdam" and context.mapping("optimizer.params").get("torch_adam"):
        return "AdamW"
    if offloads_optimizer(context):
        built = _ON_HOST.get(built, built)
    if built == "DeepSpeedCPUAdam" and context.flag("zero_optimization.zenflow"):
        return "ZenFlowCPUAdam"
    return built
