"""The order in which a model's modules run in one micro step, from its parameter names.

Registration order stands for execution order; a block is everything below one numbered child
(``model.layers.7``). A traced profile would be exact; this is what names alone can tell.
"""

import re
from functools import lru_cache

from zero_sizer.models.spec import ModelSpec

_BLOCK = re.compile(r"^(.*?\.?\d+)(?:\.|$)")


def block_of(name: str) -> str:
    """The repeated block a parameter belongs to, or "" for embeddings, final norm and head."""
    match = _BLOCK.match(name)
    return match.group(1) if match else ""


def forward_modules(spec: ModelSpec) -> tuple[tuple[int, ...], ...]:
    """Parameter indices of each parameter-owning module, in order; a tied head comes last."""
    modules: dict[str, list[int]] = {}
    for index, tensor in enumerate(spec.parameters):
        modules.setdefault(tensor.module, []).append(index)
    order = [tuple(indices) for indices in modules.values()]
    if spec.arch.tied_embeddings and order:
        order.append(order[0])
    return tuple(order)


def step_modules(spec: ModelSpec, checkpointing: bool) -> tuple[tuple[tuple[int, ...], ...], int]:
    """Modules of forward then backward, and the length of the forward.

    With checkpointing every block runs forward again just before its backward.
    """
    return _step_modules(_Key(spec), checkpointing)


class _Key:
    """Identity as a cache key: a spec is large and never changes."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec

    def __hash__(self) -> int:
        return id(self.spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and other.spec is self.spec


@lru_cache(maxsize=64)
def _step_modules(key: _Key, checkpointing: bool) -> tuple[tuple[tuple[int, ...], ...], int]:
    spec = key.spec
    forward = forward_modules(spec)
    backward: list[tuple[int, ...]] = []
    for block in reversed(_blocks(spec, forward)):
        if checkpointing and block_of(spec.parameters[block[0][0]].name):
            backward.extend(block)
        backward.extend(reversed(block))
    return (*forward, *backward), len(forward)


def _blocks(spec: ModelSpec, forward: tuple[tuple[int, ...], ...]) -> list[list[tuple[int, ...]]]:
    """Consecutive modules of one block together; modules outside blocks alone."""
    blocks: list[list[tuple[int, ...]]] = []
    last = ""
    for module in forward:
        name = block_of(spec.parameters[module[0]].name)
        if name and name == last:
            blocks[-1].append(module)
        else:
            blocks.append([module])
        last = name
    return blocks
