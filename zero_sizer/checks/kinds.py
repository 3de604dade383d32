"""Values of another kind than the key's, which DeepSpeed takes all the same."""

from collections.abc import Iterator
from typing import Any

from zero_sizer.checks.context import Context, Rule
from zero_sizer.config.keys import Key, table
from zero_sizer.config.values import shown
from zero_sizer.findings import Finding

CLIPPING = "gradient_clipping"
_COUNTS = ("train_batch_size", "train_micro_batch_size_per_gpu")
_NUMBERS = (*_COUNTS, "gradient_accumulation_steps", CLIPPING, "steps_per_print")


def truth_for_number(context: Context) -> Iterator[Finding]:
    """Python's True is a 1: neither pydantic nor a comparison refuses it."""
    for path, value in context.document.leaves():
        key = table().keys.get(path)
        if isinstance(value, bool) and key is not None and _is_number(key):
            yield context.warning(
                "odd-number",
                path,
                f"is {shown(value)}, which DeepSpeed takes for {int(value)}",
                "write the number",
            )


def _is_number(key: Key) -> bool:
    has_choice = bool(key.allowed) and any(isinstance(word, str) for word in key.allowed)
    return key.path in _NUMBERS or (key.type in ("int", "float") and not has_choice)


def part_of_a_sample(context: Context) -> Iterator[Finding]:
    """runtime/config.py, _batch_assertion asks for more than 0 and for the product, no more."""
    for path in _COUNTS:
        value = context.document.get(path)
        if isinstance(value, float) and not value.is_integer():
            yield context.warning(
                "odd-number", path, f"is {shown(value)}, not a whole number of samples", "round it"
            )


def clipping(context: Context) -> Iterator[Finding]:
    """zero/stage3.py, unscale_and_clip_grads: compared with 0 in the step, and not before."""
    value: Any = context.document.get(CLIPPING, 0)
    if isinstance(value, list | dict):
        reason = f"TypeError in the first step: {shown(value)} is no number"
    elif isinstance(value, int | float) and value < 0:
        reason = f"is {shown(value)}: nothing is clipped"
    else:
        return
    yield context.warning("odd-number", CLIPPING, reason, "write the norm to clip to, or 0")


RULES: tuple[Rule, ...] = (truth_for_number, part_of_a_sample, clipping)
