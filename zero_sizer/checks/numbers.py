"""Numbers that DeepSpeed takes as they are and that mean nothing, or less than was meant."""

from collections.abc import Iterator
from math import isfinite

from zero_sizer.config.batch import KEYS as BATCH_KEYS
from zero_sizer.config.context import ZERO, Context, Rule
from zero_sizer.config.keys import Key, table
from zero_sizer.config.values import shown
from zero_sizer.findings import Finding

_CLIPPING = "gradient_clipping"
_POSITIVE = (
    "gradient_predivide_factor",
    "aio.block_size",
    "aio.intra_op_parallelism",
    "aio.queue_depth",
    "expert_parallel.autoep_size",
    "fp16.hysteresis",
    "fp16.initial_scale_power",
    "hybrid_engine.inference_tp_size",
    "hybrid_engine.tp_gather_partition_size",
    "tensor_parallel.tp.tp_size",
)
_NOT_NEGATIVE = (
    _CLIPPING,
    "pipeline.activation_checkpoint_interval",
    "tensor_parallel.autotp_size",
    ZERO + "stage3_module_granularity_threshold",
)
_LOG_LEVELS = ("debug", "info", "warning", "error", "critical")
_REMEDY = "write a number, or delete the key"


def meaningless(context: Context) -> Iterator[Finding]:
    """Hand-written parsers take any value; pydantic takes numbers of either sign."""
    for key in (*_POSITIVE, *_NOT_NEGATIVE):
        if not context.document.has(context.spelling(key)):
            continue
        value = context.value(key)
        is_list = isinstance(value, list | dict)
        if value is None or isinstance(value, str) or (is_list and key == _CLIPPING):
            continue  # nobody decides it, or the resolver or the next rule says it
        if isinstance(value, list | dict):
            yield _odd(context, key, value, "kept as it is, and a TypeError where it is used")
        elif isinstance(value, bool):
            yield _odd(context, key, value, f"counts as {int(value)}")
        elif not isfinite(value):
            yield _odd(context, key, value, "kept as it is, and compares with nothing")
        elif value < 0 or (value == 0 and key in _POSITIVE):
            least = "0 or more" if key in _NOT_NEGATIVE else "more than 0"
            yield _odd(context, key, value, f"accepted, although only {least} means something")


def clipping(context: Context) -> Iterator[Finding]:
    """The norm is compared with it in each step (runtime/utils.py, clip_grad_norm_)."""
    value = context.value(_CLIPPING)
    if context.document.has(_CLIPPING) and (value is None or isinstance(value, list | dict)):
        message = f"TypeError in the first step: {shown(value)} is no number"
        yield context.error("odd-number", _CLIPPING, message, _REMEDY)


def _odd(context: Context, key: str, value: object, message: str) -> Finding:
    return context.warning("odd-number", key, f"{shown(value)}: {message}", _REMEDY)


def truth_for_number(context: Context) -> Iterator[Finding]:
    """Python's True is a 1: neither pydantic nor a comparison refuses it."""
    said = {context.spelling(key) for key in (*_POSITIVE, *_NOT_NEGATIVE)} | set(BATCH_KEYS)
    for path, value in context.document.leaves():
        key = table().keys.get(path)
        if path not in said and isinstance(value, bool) and key is not None and _is_number(key):
            yield _odd(context, path, value, f"DeepSpeed takes it for {int(value)}")


def _is_number(key: Key) -> bool:
    has_choice = bool(key.allowed) and any(isinstance(word, str) for word in key.allowed)
    return key.path == "steps_per_print" or (key.type in ("int", "float") and not has_choice)


def batch(context: Context) -> Iterator[Finding]:
    """runtime/config.py, _batch_assertion: greater than 0, and the product right; that is all."""
    for key in BATCH_KEYS:
        value = context.document.get(key)
        if isinstance(value, bool) and value:
            message = "true counts as 1"
        elif isinstance(value, float) and value > 0 and not value.is_integer():
            message = f"{shown(value)} is accepted by DeepSpeed, although no whole number"
            if key == "gradient_accumulation_steps" and isfinite(value):
                message += (
                    ": the optimizer steps wherever the micro batches are a multiple of it "
                    "(engine.py:3463), and gradients are divided by it all the same"
                )
        else:
            continue
        yield context.warning("batch-not-whole", key, message, "write a whole number")


def sequence_parallel_size(context: Context) -> Iterator[Finding]:
    """runtime/config.py:469 divides the ranks by it, whatever it is."""
    key = "sequence_parallel_size"
    if not context.document.has(key):
        return
    value = context.document.get(key)
    if isinstance(value, bool | int | float) and value == 0:
        reason = "ZeroDivisionError: the ranks are divided by it"
    elif not isinstance(value, bool | int | float):
        reason = f"TypeError: the ranks are divided by {shown(value)}"
    else:
        return
    if not context.document.has("data_parallel_size"):
        yield context.error("sequence-parallel-size", key, reason, "delete it, or write 1 or more")


def log_level(context: Context) -> Iterator[Finding]:
    """engine.py:585; utils/logging.py, set_log_level_from_string."""
    value = context.value("log_level")
    if not context.document.has("log_level") or value is None:
        return
    if isinstance(value, str):
        reason = "ValueError" if value.lower() not in _LOG_LEVELS else ""
    else:
        reason = "AttributeError"
    if reason:
        message = f"{reason}: {shown(value)} is none of {', '.join(_LOG_LEVELS)}"
        yield context.error("log-level", "log_level", message, "write one of them, or delete it")


def steps_per_print(context: Context) -> Iterator[Finding]:
    """engine.py: every so many steps, ``global_steps % steps_per_print``."""
    key = "steps_per_print"
    value = context.document.get(key)
    if value is None or value == "auto" or (isinstance(value, int | float) and value != 0):
        return
    error = "TypeError" if isinstance(value, str | list | dict) else "ZeroDivisionError"
    yield context.error(
        "steps-per-print", key, f"{error} after the first step: {shown(value)}", "write 10"
    )


RULES: tuple[Rule, ...] = (
    meaningless,
    clipping,
    truth_for_number,
    batch,
    sequence_parallel_size,
    log_level,
    steps_per_print,
)
