"""Gradients of an input that several layers share, where ZeRO-3 watches each of them.

Autograd adds such a gradient to those of the other layers as soon as it is made. Under ZeRO-3 each
layer's input goes through a function of its own (deepspeed 0.19.8
runtime/zero/parameter_offload.py:497-526), which holds the layer's share until the hooks of its
weights have run: while they reduce, one gradient more is there than profiles say.
"""

from collections.abc import Iterator
from functools import lru_cache

from zero_sizer.activations.changed_blocks import Rules, rules_of
from zero_sizer.activations.levels import (
    Activations,
    ComposedPart,
    ComposedSection,
    Level,
    MicroStep,
    PartLevels,
    StepLevels,
)
from zero_sizer.models.spec import ModelSpec, widths_of
from zero_sizer.units import DType, num_bytes
from zero_sizer.util.identity import Identity


def apart(step: MicroStep, spec: ModelSpec, tokens: int, dtype: DType) -> MicroStep:
    """The step with those gradients, of so many tokens."""
    return Activations(tuple(_part(part, spec, tokens, dtype) for part in step.parts))


def _part(part: PartLevels, spec: ModelSpec, tokens: int, dtype: DType) -> PartLevels:
    widths = _widths(Identity(spec), part.blocks, part.first, part.backward.labels)
    if not part.blocks or not any(widths):
        return part
    steps = tuple(
        _with(step, num_bytes(tokens * width, dtype))
        for step, width in zip(part.backward.steps, widths, strict=True)
    )
    # levels are absolute: only what a hook at the end of these steps sees is higher
    return ComposedPart.like(part, backward=ComposedSection(steps))


def _with(step: StepLevels, size: int) -> Level:
    end = step.end + size
    return Level(step.runs, step.completes, max(step.peak, end), end)


@lru_cache(maxsize=1024)
def _widths(
    spec: Identity, blocks: str, first: int, labels: tuple[tuple[str, str], ...]
) -> tuple[int, ...]:
    """Elements per token of the gradient that waits where each step of a backward ends."""
    rules = rules_of(spec.of, blocks, first)
    return tuple(_waiting(rules, labels)) if blocks else (0,) * len(labels)


def _waiting(rules: Rules, labels: tuple[tuple[str, str], ...]) -> Iterator[int]:
    begun: set[str] = set()
    for number, (runs, completes) in enumerate(labels):
        begun.update(token[1:] for token in runs.split() if token.startswith("^"))
        module = completes.rpartition(".")[0]
        is_last = number + 1 == len(labels)
        others = begun.intersection(rules.group(module)) - {module} if module else set()
        # the level of a block's end is that of the next one's beginning, too
        yield _width(rules, module) if others and not is_last else 0


def _width(rules: Rules, module: str) -> int:
    tensor = rules.own.get(f"{module}.weight")
    if tensor is None or not rules.is_linear(module):
        return 0
    return widths_of(tensor, rules.spec.arch)[0]
