"""Activations of a model under an adapter, from the profile of the model without one.

An estimate for where no profile of both together was traced. What training every weight saves is
taken as it is, though frozen layers need not save all of it, and what the adapter itself keeps is
added: the output of its first matrix, with dropout a mask and the input that it was applied to,
and the input in fp32 where adapters stay in fp32. Where weights are packed, the largest of a block
is unpacked beside all that.
"""

from collections.abc import Iterator
from math import prod

from zero_sizer.models.adapted import PREFIX
from zero_sizer.models.adapter import Adapter
from zero_sizer.models.spec import ModelSpec
from zero_sizer.passes.levels import (
    Activations,
    Level,
    MicroStep,
    Part,
    PartLevels,
    Section,
    StepLevels,
)
from zero_sizer.units import DType, num_bytes

_MATRICES = ("lora_A.default", "lora_B.default")


def with_adapter(
    step: MicroStep, spec: ModelSpec, *, tokens: int, dtype: DType, trained: DType, recomputes: bool
) -> Activations:
    """One micro step of ``spec``, whose base's is ``step``.

    Args:
        step: of the model without the adapter.
        spec: the model with it.
        tokens: samples times their length.
        dtype: of activations.
        trained: of the adapter's weights.
        recomputes: whether blocks are checkpointed.
    """
    adapter = spec.adapter or Adapter()
    parts = [piece for part in step.parts for piece in _pieces(part, adapter)]
    kept = _Kept(spec, adapter, tokens, dtype, trained)
    names = {tensor.name: tensor.trainable for tensor in spec.parameters}
    return Activations(tuple(_part(part, kept, names, recomputes=recomputes) for part in parts))


def _pieces(part: PartLevels, adapter: Adapter) -> Iterator[PartLevels]:
    """The part, block by block where only some blocks are adapted."""
    if not adapter.layers_to_transform or part.count == 1:
        yield part
        return
    for index in range(part.first, part.first + part.count):
        yield Part(part.blocks, index, 1, part.forward, part.backward)


class _Kept:
    """Bytes that the adapters below a name keep for backward."""

    def __init__(
        self, spec: ModelSpec, adapter: Adapter, tokens: int, dtype: DType, trained: DType
    ) -> None:
        self.is_adapted = spec.adapter is not None
        self._rows: dict[str, int] = {}
        for tensor in spec.parameters:
            if tensor.name.endswith(".lora_A.default.weight"):
                rank, width = tensor.shape
                size = num_bytes(tokens * rank, trained)
                if adapter.lora_dropout:
                    size += tokens * width + num_bytes(tokens * width, trained)
                if trained is not dtype:
                    size += num_bytes(tokens * width, trained)
                self._rows[tensor.name] = size

        self._unpacked = {
            tensor.name: num_bytes(prod(tensor.unpacked), dtype)
            for tensor in spec.parameters
            if tensor.unpacked is not None
        }

    def below(self, prefix: str) -> int:
        """Bytes of all of them."""
        return sum(size for name, size in self._rows.items() if name.startswith(prefix))

    def scratch(self, prefix: str) -> int:
        """Bytes of the largest weight that is unpacked there."""
        found = (size for name, size in self._unpacked.items() if name.startswith(prefix))
        return max(found, default=0)


def _part(part: PartLevels, kept: _Kept, names: dict[str, bool], *, recomputes: bool) -> Part:
    start = PREFIX if kept.is_adapted else ""
    blocks = start + part.blocks if part.blocks else ""
    prefix = f"{blocks}.{part.first}." if blocks else ""
    extra = kept.below(prefix) if prefix else 0
    within = prefix or start
    forward = [level for step in part.forward.steps for level in _levels(step, within, names)]
    backward = [level for step in part.backward.steps for level in _levels(step, within, names)]
    scratch = kept.scratch(prefix) if prefix else 0
    forward = [level._replace(peak=level.peak + scratch) for level in forward]
    backward = [level._replace(peak=level.peak + scratch) for level in backward]
    if recomputes:
        backward = [level._replace(peak=level.peak + extra) for level in backward]
    else:
        forward = [
            level._replace(peak=level.peak + extra, end=level.end + extra) for level in forward
        ]
        backward[-1] = backward[-1]._replace(end=backward[-1].end - extra)
    return Part(blocks, part.first, part.count, Section(tuple(forward)), Section(tuple(backward)))


def _levels(step: StepLevels, prefix: str, names: dict[str, bool]) -> Iterator[Level]:
    """The step, once for each module or gradient that it has become."""
    start = "" if prefix.rpartition(".")[0].rpartition(".")[2].isdigit() else prefix
    labels = [("", "")]
    runs = " ".join(token for token in step.runs.split() if not token.startswith("^"))
    if runs:
        labels = [(start + name, "") for name in _modules(runs, prefix, names)]
    elif step.completes:
        found = _gradients(step.completes, prefix, names)
        labels = [("", start + name) for name in found] or labels
    for runs, completes in labels:
        yield Level(runs, completes, step.peak, step.end)


def _modules(name: str, prefix: str, names: dict[str, bool]) -> list[str]:
    if f"{prefix}{name}.base_layer.weight" in names:
        return [f"{name}.{part}" for part in ("base_layer", *_MATRICES)]
    saved = f"{name}.modules_to_save.default"
    return [saved] if any(n.startswith(f"{prefix}{saved}.") for n in names) else [name]


def _gradients(name: str, prefix: str, names: dict[str, bool]) -> list[str]:
    """Trained tensors whose gradients are complete where that of ``name`` was."""
    module, _, key = name.rpartition(".")
    candidates = [name, f"{module}.base_layer.{key}", f"{module}.modules_to_save.default.{key}"]
    if key == "weight":
        candidates += [f"{module}.{part}.weight" for part in _MATRICES[::-1]]
    return [candidate for candidate in candidates if names.get(prefix + candidate)]
