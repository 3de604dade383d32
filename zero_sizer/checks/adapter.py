"""LoRA adapters: what they meet in the engine."""

from collections.abc import Iterator

from zero_sizer.checks.context import ZERO, Context, Rule
from zero_sizer.findings import Finding
from zero_sizer.units import DType


def fp32_adapters(context: Context) -> Iterator[Finding]:
    """peft 0.21.2 tuners/tuners_utils.py:2705; runtime/engine.py:1859."""
    if _stay_in_fp32(context):
        yield context.note(
            "adapters-stay-fp32",
            ZERO + "stage",
            "peft makes adapters in fp32 and DeepSpeed does not cast a model built under "
            "zero.Init: inputs and outputs of adapted layers are held in fp32 too",
            "get_peft_model(..., autocast_adapter_dtype=False) keeps adapters in 16 bits",
        )


def mixed_trained_dtypes(context: Context) -> Iterator[Finding]:
    """runtime/zero/utils.py:217 (defragment) asserts one dtype."""
    model = context.model
    if model is None or not _stay_in_fp32(context) or context.param_device != "none":
        return
    trained = {t.dtype is DType.FP32 for t in model.parameters if t.trainable}
    if len(trained) > 1:
        yield context.error(
            "mixed-trained-dtypes",
            ZERO + "stage",
            "AssertionError: the adapters are in fp32 and what modules_to_save or bias train "
            "beside them in 16 bits, and ZeRO-3 lays trained weights in one buffer",
            "get_peft_model(..., autocast_adapter_dtype=False), or build without zero.Init",
        )


def _stay_in_fp32(context: Context) -> bool:
    model, zero_init = context.model, context.workload.zero_init
    is_16bit = context.flag("fp16.enabled") or context.flag("bf16.enabled")
    adapted = model is not None and model.adapter is not None
    return adapted and is_16bit and context.stage == 3 and zero_init is not False


RULES: tuple[Rule, ...] = (fp32_adapters, mixed_trained_dtypes)
