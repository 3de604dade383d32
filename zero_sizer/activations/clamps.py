"""Clamps of T5 in fp16: of the hidden state behind each layer of a block.

Profiles are traced in bf16, where nothing is clamped. Backward of ``torch.clamp`` needs what it
was handed, which is kept beside what comes out (transformers 5.23 modeling_t5.py:467-508).
"""

from collections.abc import Iterator, Sequence

from zero_sizer.activations.levels import (
    Activations,
    ComposedPart,
    ComposedSection,
    Level,
    MicroStep,
    PartLevels,
    SectionLevels,
    StepLevels,
)

FAMILIES = ("t5",)
_LAYER, _FIRST = "~layer.", "~layer.0"


def clamped(step: MicroStep, num_bytes: int) -> Activations:
    """The step with clamps of hidden states of so many bytes."""
    return Activations(tuple(_part(part, num_bytes) for part in step.parts))


def _part(part: PartLevels, size: int) -> PartLevels:
    words = [token for runs, _ in part.backward.labels for token in runs.split()]
    if not part.blocks or not any(token.startswith("^") for token in words):
        return part  # nothing is kept for backward
    recomputes = not all(token.startswith("^") for token in words)
    forward = (
        part.forward if recomputes else ComposedSection(tuple(_forward(part.forward.steps, size)))
    )
    backward = _backward(part.backward, size, recomputes=recomputes)
    *others, last = backward.steps  # all of them are gone, whatever is frozen
    end = part.forward.end + part.backward.end - forward.end
    backward = ComposedSection((*others, last._replace(end=end)))
    return ComposedPart.like(part, forward=forward, backward=backward)


def _forward(steps: Sequence[StepLevels], size: int) -> Iterator[Level]:
    """A layer's input is clamped before it begins, the block's output when the last is over."""
    kept = 0
    for number, step in enumerate(steps):
        kept += size * sum(_begins_next(token) for token in step.runs.split())
        is_last = number == len(steps) - 1
        end = step.end + kept + is_last * size
        yield Level(step.runs, step.completes, max(step.peak + kept, end), end)


def _backward(section: SectionLevels, size: int, *, recomputes: bool) -> ComposedSection:
    """Each clamp's backward comes before that of the layer whose output it clamped."""
    steps = tuple(section.steps)
    again = [n for n, step in enumerate(steps) if _runs_again(step)] if recomputes else []
    begins = again[-1] + 1 if again else 0
    found = list(_forward(steps[:begins], size))
    kept = found[-1].end - steps[begins - 1].end if found else 0
    for number, step in enumerate(steps[begins:]):
        # the last layer's is the first step of backward, or comes when recomputation is over
        ends = number == 0 or any(_ends_layer(token) for token in step.runs.split())
        kept -= size * ends
        found.append(Level(step.runs, step.completes, step.peak + kept, step.end + kept))
    return ComposedSection(tuple(found))


def _runs_again(step: StepLevels) -> bool:
    return any(not token.startswith("^") for token in step.runs.split())


def _begins_next(token: str) -> bool:
    """``~layer.1``: a layer behind the first."""
    return token.startswith(_LAYER) and token.count(".") == 1 and token != _FIRST


def _ends_layer(token: str) -> bool:
    """``^~layer.1.dropout``: the last module of a layer."""
    return token.startswith("^" + _LAYER) and token.endswith(".dropout") and token.count(".") == 2
