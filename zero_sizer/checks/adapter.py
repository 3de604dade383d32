"""LoRA adapters and packed weights: what they meet in the engine."""

from collections.abc import Iterator

from zero_sizer.config.context import ZERO, Context, Rule, left_out
from zero_sizer.findings import Direction, Finding
from zero_sizer.units import DType

_STACKED = 3  # dimensions of experts in one tensor: how many, and a matrix each


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
    if model is None or model.adapter is None or model.quantization is not None:
        return False
    return is_16bit and context.stage == 3 and zero_init is not False


def packed_codes_cast(context: Context) -> Iterator[Finding]:
    """runtime/engine.py:1859: every floating parameter is cast, codes packed into one too."""
    how = None if context.model is None else context.model.quantization
    if how is None or not how.storage.is_floating:
        return
    for key, dtype in (("bf16.enabled", DType.BF16), ("fp16.enabled", DType.FP16)):
        if context.flag(key) and how.storage is not dtype:
            yield context.error(
                "packed-codes-cast",
                key,
                f"Warning: 4-bit codes are stored as {how.storage.value}, and DeepSpeed casts them "
                f"to {dtype.value} as if they were numbers",
                f"set bnb_4bit_quant_storage to {dtype.value} or uint8",
            )


def int8_at_stage_3(context: Context) -> Iterator[Finding]:
    """bitsandbytes 0.50.2 nn/modules.py:737: a second reference to the codes, beside the weight."""
    how = None if context.model is None else context.model.quantization
    if how is not None and how.bits == 8 and context.stage == 3:
        finding = context.warning(
            "int8-not-modelled",
            ZERO + "stage",
            "bitsandbytes keeps a second reference to 8-bit weights, so that partitioning them "
            "frees nothing: the prediction is too low by up to all of them",
            "take 4 bits, or stage 2",
        )
        yield left_out(finding, Direction.COST)


def unpacked_experts(context: Context) -> Iterator[Finding]:
    """transformers 5.23 integrations/bitsandbytes.py:189 converts linear layers only."""
    model = context.model
    if model is None or model.quantization is None:
        return
    experts = sum(
        tensor.numel
        for tensor in model.parameters
        if len(tensor.shape) == _STACKED and tensor.unpacked is None
    )
    if experts:
        yield context.note(
            "experts-not-packed",
            "--quantization",
            f"{experts:,} of {model.num_params:,} parameters are experts stacked in one tensor "
            "each, not linear layers: bitsandbytes leaves them as they are",
            "",
        )


def zero_init_of_packed(context: Context) -> Iterator[Finding]:
    """transformers 5.23 modeling_utils.py:1435, 3815."""
    is_packed = context.model is not None and context.model.quantization is not None
    if is_packed and context.workload.zero_init:
        yield context.warning(
            "zero-init-of-packed",
            "--zero-init",
            "changes nothing: transformers builds no model with packed weights under zero.Init",
            "leave it out",
        )


def packed_without_adapter(context: Context) -> Iterator[Finding]:
    """transformers' Trainer refuses it (trainer_utils: validate_quantization_for_training)."""
    model = context.model
    if model is not None and model.quantization is not None and not model.num_trainable:
        origin = model.quantization.origin
        where = "" if origin.startswith("--") else f" ({origin})"
        yield context.error(
            "packed-weights-alone",
            "--quantization",
            f"ValueError: packed weights{where} cannot be trained, and nothing else is there to "
            "train",
            "add an adapter: --adapter r=16,targets=all-linear",
        )


def dora_under_zero_init(context: Context) -> Iterator[Finding]:
    """peft 0.21 tuners/lora/dora.py:108 asks transformers whether to gather what it reads.

    Afterwards a forward that reads a weight which ZeRO-3 has let go of gathers it again
    (DeepSpeed's parameter_offload.py:80), so that DoRA trains at stage 3.
    """
    model, stated = context.model, context.workload.zero_init
    if model is None or model.adapter is None or not model.adapter.use_dora:
        return
    if context.stage == 3 and stated is not False and model.origin.startswith("factory "):
        yield context.error(
            "dora-under-zero-init",
            "zero_optimization.stage",
            "RuntimeError where the adapter is made: DoRA reads weights that zero.Init has "
            "partitioned, and peft gathers them only where transformers knows of ZeRO-3",
            "make transformers' HfDeepSpeedConfig(config) before the model, or build it without "
            "zero.Init (--no-zero-init)",
        )


RULES: tuple[Rule, ...] = (
    dora_under_zero_init,
    fp32_adapters,
    mixed_trained_dtypes,
    packed_codes_cast,
    int8_at_stage_3,
    unpacked_experts,
    zero_init_of_packed,
    packed_without_adapter,
)
