"""Precision: fp16, bf16, torch_autocast, master weights, gradient accumulation."""

from collections.abc import Iterator

from zero_sizer.config import engine
from zero_sizer.config.context import Context, Rule, left_out
from zero_sizer.findings import Direction, Finding
from zero_sizer.plan.resolve import hf_dtype
from zero_sizer.units import DType, format_gib, num_bytes

FP16_MASTER = "fp16.fp16_master_weights_and_grads"
BF16_MASTER = "bf16.bf16_master_weights_and_grads"
BF16_STATES = "bf16.bf16_optimizer_states"
ACCUM_DTYPE = "data_types.grad_accum_dtype"


def both_enabled(context: Context) -> Iterator[Finding]:
    """runtime/config.py, _initialize_params."""
    if context.flag("fp16.enabled") and context.flag("bf16.enabled"):
        yield context.error(
            "fp16-and-bf16",
            "fp16.enabled",
            "AssertionError: fp16 and bf16 cannot both be enabled",
            "disable one; bf16 wherever the GPU has it (Ampere and later)",
        )


def dynamic_loss_scale(context: Context) -> Iterator[Finding]:
    """runtime/precision_config.py, _validate_dynamic_loss_scale_params."""
    if not context.flag("fp16.enabled") or context.number("fp16.loss_scale") != 0:
        return
    for key in ("fp16.loss_scale_window", "fp16.min_loss_scale"):
        value = context.number(key)
        if value is not None and value <= 0:
            yield context.error(
                "loss-scale",
                key,
                f"ValidationError: {value:g} cannot drive the dynamic loss scale (loss_scale 0)",
                "give a whole number above 0",
            )


def master_weights_at_stage_0(context: Context) -> Iterator[Finding]:
    """runtime/config.py, _do_error_check."""
    if context.stage:
        return
    for key in (FP16_MASTER, BF16_MASTER, BF16_STATES):
        if context.flag(key):
            yield context.error(
                "master-weights-stage",
                key,
                "AssertionError: only ZeRO stages 1 to 3 know it, and this is stage 0",
                "set zero_optimization.stage to 1, 2 or 3",
            )


def states_without_master(context: Context) -> Iterator[Finding]:
    """runtime/config.py, _do_error_check."""
    if context.stage and context.flag(BF16_STATES) and not context.flag(BF16_MASTER):
        yield context.error(
            "bf16-states",
            BF16_STATES,
            "AssertionError: bf16 optimizer states need bf16_master_weights_and_grads too",
            f"set {BF16_MASTER}",
        )


def both_masters(context: Context) -> Iterator[Finding]:
    """runtime/base_optimizer.py, _configure_master_weights."""
    if engine.uses_zero(context) and context.flag(FP16_MASTER) and context.flag(BF16_MASTER):
        yield context.error(
            "both-master-weights",
            FP16_MASTER,
            "AssertionError: fp16 and bf16 master weights exclude each other",
            "keep the one of the enabled precision",
        )


def master_weights_need_cpu_adam(context: Context) -> Iterator[Finding]:
    """runtime/base_optimizer.py:510-518, with the validators of stages 1-2 and 3."""
    if not engine.uses_zero(context):
        return
    offloaded = engine.offloads_optimizer(context)
    bf16_needs = context.flag(BF16_MASTER) and (not context.flag(BF16_STATES) or offloaded)
    for key, needs in ((BF16_MASTER, bf16_needs), (FP16_MASTER, context.flag(FP16_MASTER))):
        optimizer = engine.optimizer_class(context)
        if needs and not (offloaded and optimizer in ("DeepSpeedCPUAdam", "")):
            named = f", not {optimizer}" if optimizer and offloaded else ""
            yield context.error(
                "master-weights-offload",
                key,
                "AssertionError: 16-bit master weights need the optimizer offloaded to the host "
                f"and DeepSpeedCPUAdam{named}",
                "set zero_optimization.offload_optimizer.device to cpu with Adam or AdamW, or add "
                "bf16_optimizer_states to keep bf16 states on the GPU",
            )


def master_weights_of_other_precision(context: Context) -> Iterator[Finding]:
    """The flag is read whether or not its precision is enabled."""
    if not engine.uses_zero(context):
        return
    for key, enabled in ((FP16_MASTER, "fp16"), (BF16_MASTER, "bf16")):
        if context.flag(key) and engine.model_dtype(context) not in (enabled, ""):
            yield context.warning(
                "master-weights-dtype",
                key,
                f"takes effect although {enabled} is off: the master weights of this "
                f"{engine.model_dtype(context)} model become {enabled}",
                "delete it",
            )


def master_weights_ignored(context: Context) -> Iterator[Finding]:
    """BF16_Optimizer always keeps fp32 master weights."""
    if engine.uses_bf16_optimizer(context) and context.flag(BF16_MASTER):
        yield context.warning(
            "ignored-by-bf16-optimizer",
            BF16_MASTER,
            "ignored: stage 1 with fp32 accumulation runs BF16_Optimizer, whose master weights "
            "are fp32",
            f"delete {ACCUM_DTYPE} or use stage 2",
        )


def dtype_names(context: Context) -> Iterator[Finding]:
    """DtypeEnum is asked when the engine reads the value (engine.py:1799-1850)."""
    for name in ("grad_accum_dtype", "param_dtype", "buffer_dtype"):
        key = f"data_types.{name}"
        needed = name != "buffer_dtype" or engine.model_dtype(context) != "fp32"
        if needed and engine.dtype_named(context, key) is None:
            yield context.error(
                "unknown-dtype",
                key,
                "ValueError: not a dtype DeepSpeed knows",
                "write fp32, fp16 or bf16",
            )


def accumulation_at_stage_0(context: Context) -> Iterator[Finding]:
    """engine.py:2322."""
    accumulated = engine.grad_accum_dtype(context)
    model = engine.model_dtype(context)
    if model and context.stage == 0 and accumulated not in (None, model):
        yield context.error(
            "grad-accum-dtype",
            ACCUM_DTYPE,
            f"NotImplementedError: without ZeRO, gradients of a {model} model accumulate in "
            f"{model} only, not {accumulated}",
            "use stage 1 or higher, or delete it",
        )


def param_dtype_conflict(context: Context) -> Iterator[Finding]:
    """engine.py:1812, _assert_valid_mixed_precision_config."""
    named = engine.dtype_named(context, "data_types.param_dtype")
    model = engine.model_dtype(context)
    if named and model and named != model:
        yield context.error(
            "param-dtype",
            "data_types.param_dtype",
            f"AssertionError: {named} contradicts the enabled precision, which makes the model "
            f"{model}",
            "delete it; fp16.enabled or bf16.enabled decides",
        )


def full_fp32_gradient(context: Context) -> Iterator[Finding]:
    """runtime/bf16_optimizer.py:190."""
    if engine.uses_bf16_optimizer(context):
        yield context.note(
            "full-fp32-gradient",
            ACCUM_DTYPE,
            "stage 1 with fp32 accumulation runs BF16_Optimizer: every rank keeps a full fp32 "
            "gradient, 4 bytes per parameter, from the start and not partitioned",
            "stage 2 keeps only a partition of it",
        )


def autocast(context: Context) -> Iterator[Finding]:
    """runtime/torch_autocast.py."""
    if not context.flag("torch_autocast.enabled"):
        return
    key = "torch_autocast.enabled"
    if context.flag("zero_optimization.zero_quantized_weights"):
        yield context.error(
            "autocast-quantized-weights",
            key,
            "AssertionError: torch_autocast and zero_quantized_weights exclude each other",
            "disable one",
        )
    if engine.model_dtype(context) in ("fp16", "bf16"):
        yield context.warning(
            "autocast-with-16-bit",
            key,
            f"the model is cast to {engine.model_dtype(context)} as well, so autocast has no fp32 "
            "weights to work on",
            "disable fp16 or bf16, or torch_autocast",
        )
    if context.value("torch_autocast.dtype") is None:
        yield context.warning(
            "autocast-dtype",
            key,
            "no dtype: torch's default for the device holds, which is fp16 on CUDA, and DeepSpeed "
            "then scales no loss",
            'add "dtype": "bfloat16"',
        )


def weights_twice(context: Context) -> Iterator[Finding]:
    """stage_1_and_2.py:560, stage3.py:1161: the fp32 master is a copy even of fp32 weights."""
    if engine.uses_zero(context) and engine.model_dtype(context) == "fp32":
        cause = "torch_autocast" if context.flag("torch_autocast.enabled") else "fp32 training"
        yield context.note(
            "fp32-weights-twice",
            "torch_autocast" if context.flag("torch_autocast.enabled") else "bf16.enabled",
            f"{cause} under ZeRO keeps fp32 weights and a separate fp32 master copy of them",
            "bf16.enabled halves the weights and gradients",
        )


def loaded_dtype(context: Context) -> Iterator[Finding]:
    """runtime/engine.py:2074-2090: without fp16 or bf16 the engine casts no weight."""
    if context.model is None or engine.model_dtype(context) != "fp32":
        return
    if _under_zero_init(context):
        return  # it makes them fp32
    loaded = hf_dtype(context.model)
    if loaded is not None and loaded is not DType.FP32:
        finding = context.note(
            "assumed-fp32-weights",
            "bf16.enabled",
            f"without bf16 or fp16 DeepSpeed trains the weights as the script loads them: fp32 "
            f"assumed, but transformers 5 loads this model as {loaded.value} unless it is told a "
            "dtype",
            "enable bf16 to train in bf16; to train in fp32, pass dtype=torch.float32 when loading",
        )
        yield left_out(finding, Direction.SAVE, device="")


def load_dtype_unknown(context: Context) -> Iterator[Finding]:
    """transformers 5.23 loads as config.json says, else as the checkpoint's tensors are."""
    model = context.model
    if model is None or engine.model_dtype(context) not in ("fp16", "bf16"):
        return
    is_known = hf_dtype(model) is not None or model.origin.startswith("factory ")
    if is_known or model.quantization is not None or _under_zero_init(context):
        return
    size = format_gib(num_bytes(model.num_params, DType.FP32))
    yield context.note(
        "assumed-load-dtype",
        "--model",
        f"no dtype is named for {model.name}: the script is taken to load it in fp32, {size} of "
        "host memory in every process until the engine casts it",
        'loading in 16 bits takes half; "dtype" in a config.json says so',
    )


def _under_zero_init(context: Context) -> bool:
    zero_init = context.workload.zero_init
    return context.stage == 3 if zero_init is None else zero_init


RULES: tuple[Rule, ...] = (
    both_enabled,
    dynamic_loss_scale,
    master_weights_at_stage_0,
    states_without_master,
    both_masters,
    master_weights_need_cpu_adam,
    master_weights_of_other_precision,
    master_weights_ignored,
    dtype_names,
    accumulation_at_stage_0,
    param_dtype_conflict,
    full_fp32_gradient,
    autocast,
    weights_twice,
    loaded_dtype,
    load_dtype_unknown,
)
