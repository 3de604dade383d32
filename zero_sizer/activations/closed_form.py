"""Activations of a model without a profile: the closed form, in a profile's shape."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from zero_sizer.activations import loss
from zero_sizer.activations.block_sizes import block_bytes, num_layers
from zero_sizer.activations.execution import block_of, forward_modules
from zero_sizer.activations.levels import Activations, ComposedPart, ComposedSection, Level
from zero_sizer.activations.loss import Sizes
from zero_sizer.activations.names import containers
from zero_sizer.models.changes.lora import tied_modules
from zero_sizer.models.spec import ModelSpec
from zero_sizer.units import DType, num_bytes
from zero_sizer.util.identity import Identity

_Labels = tuple[tuple[str, str], ...]


def step_activations(
    spec: ModelSpec,
    sizes: Sizes,
    *,
    seq_len: int,
    checkpointing: bool,
    attention: str,
    weight_dtype: DType,
) -> Activations:
    """One micro step by arXiv:2205.05198 (see ``closed_form``), blocks told apart by name.

    The loss is transformers'; ``sizes`` are its. A tied head's gradient waits for the embedding's,
    in ``weight_dtype``; a checkpointed block is taken to run again as it ran.
    """
    tokens, dtype = sizes.tokens, sizes.dtype
    layer_bytes = block_bytes(
        spec.arch, tokens=tokens, seq_len=seq_len, dtype=dtype, eager=attention == "eager"
    )
    saved = sizes.inputs if checkpointing else layer_bytes
    # what a block's backward holds beside what was saved: its recomputation, or the gradients
    transient = layer_bytes if checkpointing else sizes.inputs
    shape = _shape_of(Identity(spec), checkpointing)
    of_blocks, outside = (layer_bytes, saved, transient), (0, 0, 0)
    parts = [_part(run, *(of_blocks if run.is_block else outside)) for run in shape.runs]
    if not any(run.is_block for run in shape.runs):  # numbers alone: all layers in one
        layers = max(num_layers(spec.arch), 1)
        parts.append(_part(_NAMELESS, layer_bytes, layers * saved, transient))
    waiting = 0
    if shape.waits_for and sizes.trains_head:
        waiting = num_bytes(sizes.vocab * sizes.hidden, weight_dtype)
        parts = [_summed(part, shape.waits_for, waiting) for part in parts]
    head = loss.closed_form(sizes, shape.head, shape.head_names, waiting)
    return Activations((*parts, head))


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
    """All that names tell of a step.

    Attributes:
        runs: its parts but for the head.
        head: the module that is the head; empty where none is known.
        head_names: parameters whose gradients its backward completes.
        waits_for: the tied parameter, whose gradient the embedding's backward completes.
    """

    runs: tuple[_Run, ...]
    head: str
    head_names: tuple[str, ...]
    waits_for: str


@lru_cache(maxsize=64)
def _shape_of(identity: Identity, again: bool) -> _Shape:
    spec: ModelSpec = identity.of
    groups = _groups(spec)
    head = _take_head(spec, groups)
    runs: list[_Run] = []
    entered = {""}  # around modules outside of blocks
    for group in groups:
        run = _run(group, entered, again=again)
        last = runs[-1] if runs else None
        if last is not None and run == last._replace(first=last.first + last.depth, depth=1):
            runs[-1] = last._replace(depth=last.depth + 1)
        else:
            runs.append(run)
    if not head:
        return _Shape(tuple(runs), "", (), "")
    module = head[0].rpartition(".")[0]
    if not spec.arch.tied_embeddings:
        return _Shape(tuple(runs), module, head, "")
    names = (m for m, of in tied_modules(spec).items() if of in ("", head[0]))
    return _Shape(tuple(runs), next(names, module), (), head[0])


def _take_head(spec: ModelSpec, groups: list[list[tuple[str, ...]]]) -> tuple[str, ...]:
    """Parameters of the head, which is taken out of the last group; none where none is one."""
    numel = (spec.arch.vocab or 0) * (spec.arch.hidden or 0)
    sizes = {tensor.name: tensor.numel for tensor in spec.parameters}
    *_, last = groups or [[]]
    is_head = bool(last) and numel > 0 and sizes[last[-1][0]] == numel
    if not is_head or block_of(last[-1][0]):
        return ()
    head = last.pop()
    if not last:
        groups.pop()
    return head


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


def _run(names: Sequence[tuple[str, ...]], entered: set[str], *, again: bool) -> _Run:
    """A group as a run of one; blocks that have no number cannot be told apart."""
    block = block_of(names[0][0])
    blocks, _, number = block.rpartition(".")
    numbered = number.isdecimal()
    prefix = f"{block}." if numbered else ""
    owners = [f"{m[0].rpartition('.')[0]}." for m in names]
    modules = [owner.removeprefix(prefix).removesuffix(".") or "." for owner in owners]
    forward = _forward(modules, {""} if numbered else entered)
    backward = []
    if again and block:  # the backward of the last asks for what it saved
        (first, _), *others, _ = forward
        backward = [(f"^{modules[-1]}", ""), (first, ""), *others]
    for module, owned in zip(modules[::-1], names[::-1], strict=True):
        begins = "" if backward and module == modules[-1] else f"^{module}"
        for name in _made_in_turn(owned):
            backward.append((begins, name.removeprefix(prefix)))
            begins = ""
    where = (blocks, int(number)) if numbered else ("", 0)
    return _Run(*where, 1, bool(block), forward, tuple(backward))


def _made_in_turn(owned: Sequence[str]) -> Sequence[str]:
    """Gradients in the order in which backward makes them: one product's at once, else the last."""
    of_product = all(name.rpartition(".")[2] in ("weight", "bias") for name in owned)
    return owned if of_product else owned[::-1]


def _forward(modules: Sequence[str], entered: set[str]) -> _Labels:
    """Each begins where the one before has run, and those around it before the first of them."""
    labels, over = [], ""
    for module in modules:
        around = [name for name in containers(module) if name not in {*entered, *modules}]
        entered.update(around)
        words = [over, *(f"~{name}" for name in around), module]
        labels.append((" ".join(word for word in words if word), ""))
        over = f"/{module}"
    return (*labels, (over, ""))


def _part(run: _Run, highest: int, saved: int, transient: int) -> ComposedPart:
    forward = _section(run.forward, highest, saved)
    backward = _section(run.backward, transient, -saved)
    return ComposedPart(run.blocks, run.first, run.depth, forward, backward)


def _section(labels: _Labels, peak: int, end: int) -> ComposedSection:
    steps = [Level(runs, completes, peak, max(end, 0)) for runs, completes in labels]
    return ComposedSection((*steps[:-1], steps[-1]._replace(end=end)))


def _summed(part: ComposedPart, name: str, waiting: int) -> ComposedPart:
    """The part in whose backward a gradient is made beside the one that waits for it."""
    steps = part.backward.steps
    if part.blocks or all(step.completes != name for step in steps):
        return part
    found: list[Level] = []
    for step in steps:
        if step.completes != name:
            found.append(Level(step.runs, step.completes, step.peak, step.end))
            continue
        found.append(Level(step.runs, "", step.peak + waiting, step.end + waiting))
        found.append(Level("", name, step.peak + waiting, step.end - waiting))
    number = [step.completes for step in found].index(name)
    after = [step._replace(end=step.end - waiting) for step in found[number + 1 :]]
    return ComposedPart.like(part, backward=ComposedSection((*found[: number + 1], *after)))
