"""The order in which a model's modules run in one micro step, from its parameter names.

Registration order stands for execution order; a block is everything below one numbered child
(``model.layers.7``). A traced profile would be exact; this is what names alone can tell.
"""

import re

from zero_sizer.models.spec import ModelSpec, Tensor

# A layer that never runs itself: torch's MultiheadAttention asks for what it owns, and DeepSpeed
# gathers that with the attention from then on.
NEVER_RUNS = "NonDynamicallyQuantizableLinear"

_BLOCK = re.compile(r"^(.*?\.?\d+)(?:\.|$)")


def block_of(name: str) -> str:
    """The repeated block a parameter belongs to, or "" for embeddings, final norm and head."""
    match = _BLOCK.match(name)
    return match.group(1) if match else ""


def runs_with(tensor: Tensor) -> str:
    """The module with which a parameter is gathered."""
    module = tensor.module
    return module.rpartition(".")[0] if tensor.module_type == NEVER_RUNS else module


def forward_modules(spec: ModelSpec) -> tuple[tuple[int, ...], ...]:
    """Parameter indices of each module that runs with some, in order; a tied head comes last."""
    modules: dict[str, list[int]] = {}
    for index, tensor in enumerate(spec.parameters):
        modules.setdefault(runs_with(tensor), []).append(index)
    order = [tuple(indices) for indices in modules.values()]
    if spec.arch.tied_embeddings and order:
        order.append(order[0])
    return tuple(order)
