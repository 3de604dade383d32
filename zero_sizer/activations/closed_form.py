"""Activations of a model without a profile: the closed form, in a profile's shape."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from zero_sizer.activations import loss
from zero_sizer.activations.block_sizes import block_bytes, num_layers
from zero_sizer.activations.execution import block_of, forward_modules
from zero_sizer.activations.levels import Activations, ComposedPart, ComposedSection, Level
from zero_sizer.activations.loss import Sizes
from zero_sizer.models.spec import ModelSpec
from zero_sizer.util.identity import Identity

_Labels = tuple[tuple[str, str], ...]


def step_activations(
    spec: ModelSpec, sizes: Sizes, *, seq_len: int, checkpointing: bool, attention: str
) -> Activations:
    """One micro step by arXiv:2205.05198 (see ``closed_form``), blocks told apart by name.

    The loss is transformers'; ``sizes`` are its.
    """
    tokens, dtype = sizes.tokens, sizes.dtype
    layer_bytes = block_bytes(
        spec.arch, tokens=tokens, seq_len=seq_len, dtype=dtype, eager=attention == "eager"
    )
    saved = sizes.inputs if checkpointing else layer_bytes
    # what a block's backward holds beside what was saved: its recomputation, or the gradients
    transient = layer_bytes if checkpointing else sizes.inputs
    shape = _shape_of(Identity(spec))
    of_blocks, outside = (layer_bytes, saved, transient), (0, 0, 0)
    parts = [_part(run, *(of_blocks if run.is_block else outside)) for run in shape.runs]
    if not any(run.is_block for run in shape.runs):  # numbers alone: all layers in one
        layers = max(num_layers(spec.arch), 1)
        parts.append(_part(_NAMELESS, layer_bytes, layers * saved, transient))
    return Activations((*parts, loss.closed_form(sizes, shape.head)))


class _Run(NamedTuple):
    """Equal blocks in a row, or modules outside of blocks.

    Attributes:
        blocks: qualified name of the list of blocks; empty outside.
        first: number of the first block.
        depth: how many.
        is_block: whether layers are meant, numbered or not.
        forward: labels of its pieces.
        backward: see ``forward``.
    """

    blocks: str
    first: int
    depth: int
    is_block: bool
    forward: _Labels
    backward: _Labels


_NAMELESS = _Run("", 0, 1, True, (("", ""),), (("", ""),))


class _Shape(NamedTuple):
    """All that names tell of a step: its parts, and the parameters of the head."""

    runs: tuple[_Run, ...]
    head: tuple[str, ...]


@lru_cache(maxsize=64)
def _shape_of(identity: Identity) -> _Shape:
    spec: ModelSpec = identity.of
    groups = _groups(spec)
    head = groups.pop()[0] if groups and _is_head(spec, groups[-1]) else ()
    runs: list[_Run] = []
    for run in map(_run, groups):
        last = runs[-1] if runs else None
        if last is not None and run == last._replace(first=last.first + last.depth, depth=1):
            runs[-1] = last._replace(depth=last.depth + 1)
        else:
            runs.append(run)
    return _Shape(tuple(runs), head)


def _is_head(spec: ModelSpec, group: Sequence[tuple[str, ...]]) -> bool:
    """Whether all there is of a group is a matrix of the vocabulary's size."""
    numel = (spec.arch.vocab or 0) * (spec.arch.hidden or 0)
    sizes = {tensor.name: tensor.numel for tensor in spec.parameters}
    return len(group) == 1 and numel > 0 and sizes[group[0][0]] == numel


def _groups(spec: ModelSpec) -> list[list[tuple[str, ...]]]:
    """Modules (as parameter names) in order: each block's together, others as they come."""
    groups: list[list[tuple[str, ...]]] = []
    last = None
    for module in forward_modules(spec):
        names = tuple(spec.parameters[i].name for i in module)
        block = block_of(names[0])
        if groups and block == last:
            groups[-1].append(names)
        else:
            groups.append([names])
        last = block
    return groups


def _run(names: Sequence[tuple[str, ...]]) -> _Run:
    """A group as a run of one; blocks that have no number cannot be told apart."""
    block = block_of(names[0][0])
    blocks, _, number = block.rpartition(".")
    numbered = number.isdecimal()
    prefix = f"{block}." if numbered else ""
    owners = [f"{m[0].rpartition('.')[0]}." for m in names]
    modules = [owner.removeprefix(prefix).removesuffix(".") or "." for owner in owners]
    begun = [(f"/{before} {name}", "") for before, name in pairwise(modules)]
    done = [("", name.removeprefix(prefix)) for m in reversed(names) for name in reversed(m)]
    where = (blocks, int(number)) if numbered else ("", 0)
    labels = ((modules[0], ""), *begun, (f"/{modules[-1]}", ""))
    return _Run(*where, 1, bool(block), labels, tuple(done))


def _part(run: _Run, highest: int, saved: int, transient: int) -> ComposedPart:
    forward = _section(run.forward, highest, saved)
    backward = _section(run.backward, transient, -saved)
    return ComposedPart(run.blocks, run.first, run.depth, forward, backward)


def _section(labels: _Labels, peak: int, end: int) -> ComposedSection:
    steps = [Level(runs, completes, peak, max(end, 0)) for runs, completes in labels]
    return ComposedSection((*steps[:-1], steps[-1]._replace(end=end)))
