"""Activations of a model without a profile: the closed form, in a profile's shape."""

from collections.abc import Sequence
from itertools import pairwise

from zero_sizer.activations import loss
from zero_sizer.activations.block_sizes import block_bytes, num_layers
from zero_sizer.activations.execution import block_of, forward_modules
from zero_sizer.activations.levels import Activations, ComposedPart, ComposedSection, Level
from zero_sizer.activations.loss import Sizes
from zero_sizer.models.spec import ModelSpec


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
    groups = _groups(spec)
    named = sum(1 for group in groups if block_of(group[0][0]))
    layers = max(num_layers(spec.arch), 1)
    head = groups.pop()[0] if groups and _is_head(spec, groups[-1]) else ()
    parts = [
        _part(group, layer_bytes, saved, transient)
        if block_of(group[0][0])
        else _part(group, 0, 0, 0)
        for group in groups
    ]
    if not named:  # numbers alone: no block to be seen in the names, all layers in one
        parts.append(_part([], layer_bytes, layers * saved, transient))
    return Activations((*parts, loss.closed_form(sizes, head)))


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


def _part(
    names: Sequence[tuple[str, ...]], highest: int, saved: int, transient: int
) -> ComposedPart:
    block = block_of(names[0][0]) if names else ""
    blocks, _, number = block.rpartition(".")
    numbered = number.isdecimal()
    prefix = f"{block}." if numbered else ""
    owners = [f"{m[0].rpartition('.')[0]}." for m in names]
    modules = [owner.removeprefix(prefix).removesuffix(".") or "." for owner in owners]
    runs = [(f"/{before} {name}", "") for before, name in pairwise(modules)]
    runs = [(modules[0], ""), *runs, (f"/{modules[-1]}", "")] if modules else []
    done = [("", name.removeprefix(prefix)) for m in reversed(names) for name in reversed(m)]
    return ComposedPart(
        blocks if numbered else "",
        int(number) if numbered else 0,
        1,
        _section(runs, highest, saved),
        _section(done, transient, -saved),
    )


def _section(labels: Sequence[tuple[str, str]], peak: int, end: int) -> ComposedSection:
    rows = labels or [("", "")]
    steps = [Level(runs, completes, peak, max(end, 0)) for runs, completes in rows]
    return ComposedSection((*steps[:-1], steps[-1]._replace(end=end)))
