"""The learning-rate scheduler a config names (engine.py:1931; runtime/lr_schedules.py)."""

from collections.abc import Iterator, Mapping
from typing import Any

from zero_sizer.config import engine
from zero_sizer.config.context import Context, Rule, nearest
from zero_sizer.config.keys import table
from zero_sizer.findings import Finding

TYPE = "scheduler.type"
TORCH_SCHEDULERS = (
    "ChainedScheduler",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "CyclicLR",
    "ExponentialLR",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "MultiplicativeLR",
    "OneCycleLR",
    "PolynomialLR",
    "ReduceLROnPlateau",
    "SequentialLR",
    "StepLR",
)
_REQUIRED = {
    "OneCycle": ("cycle_min_lr", "cycle_max_lr"),
    "WarmupDecayLR": ("total_num_steps",),
    "WarmupCosineLR": ("total_num_steps",),
}
_POSITIVE_INTEGERS = ("warmup_num_steps", "lr_range_test_step_size")


def exists(context: Context) -> Iterator[Finding]:
    """engine.py:1936."""
    name = context.text(TYPE)
    known = [*_deepspeed(), *TORCH_SCHEDULERS]
    if not isinstance(context.value(TYPE), str) or name in known:
        return
    near = nearest(name, known)
    yield context.error(
        "unknown-scheduler",
        TYPE,
        f"AssertionError: DeepSpeed and torch have no scheduler {name!r}",
        f"did you mean {near}?" if near else f"use one of {', '.join(_deepspeed())}",
    )


def name_is_no_string(context: Context) -> Iterator[Finding]:
    """engine.py:1934, hasattr of a number."""
    value = context.value(TYPE)
    if value is not None and not isinstance(value, str):
        yield context.error("unknown-scheduler", TYPE, "TypeError: not a name", "write a name")


def torch_scheduler(context: Context) -> Iterator[Finding]:
    """engine.py:1940 hands it DeepSpeed's wrapper, which is no torch Optimizer."""
    name = context.text(TYPE)
    wrapped = context.stage or engine.model_dtype(context) in ("fp16", "bf16")
    if name in TORCH_SCHEDULERS and wrapped:
        yield context.error(
            "torch-scheduler",
            TYPE,
            f"TypeError: torch's {name} does not take the optimizer that DeepSpeed wraps",
            "build it in the training script, or use one of DeepSpeed's: "
            + ", ".join(_deepspeed()),
        )


def arguments(context: Context) -> Iterator[Finding]:
    """scheduler.params become keyword arguments."""
    name, params = context.text(TYPE), context.mapping("scheduler.params")
    known = _deepspeed().get(name)
    if known is None:
        return
    if context.document.get("scheduler.params") is None:
        message = "TypeError: needs an object of arguments, even if empty"
        yield context.error("scheduler-argument", "scheduler.params", message, 'add "params": {}')
        return
    for required in _REQUIRED.get(name, ()):
        if required not in params:
            message = f"TypeError: {name} cannot do without {required}"
            yield context.error(
                "scheduler-argument", f"scheduler.params.{required}", message, f"add {required}"
            )
    for argument in params:
        if argument not in known:
            near = nearest(argument, known)
            yield context.error(
                "scheduler-argument",
                f"scheduler.params.{argument}",
                f"TypeError: {name} knows no such argument",
                f"did you mean {near}?" if near else "delete it",
            )


def steps(context: Context) -> Iterator[Finding]:
    """lr_schedules.py:370, 527, 734, 875."""
    known = _deepspeed().get(context.text(TYPE), {})
    params = context.mapping("scheduler.params")
    for name in _POSITIVE_INTEGERS:
        value = params.get(name, 1)
        whole = isinstance(value, int) and value > 0
        if name in known and value != "auto" and not whole:
            yield context.error(
                "scheduler-steps",
                f"scheduler.params.{name}",
                "ValueError: must be a whole number above 0",
                "write for example 100",
            )


def _deepspeed() -> dict[str, Mapping[str, Any]]:
    """DeepSpeed's own schedulers and the arguments of each."""
    return {path.rpartition(".")[2]: names for path, names in table().scheduler_classes.items()}


RULES: tuple[Rule, ...] = (exists, name_is_no_string, torch_scheduler, arguments, steps)
