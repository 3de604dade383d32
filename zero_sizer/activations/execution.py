"""The order in which a model's modules run in one micro step, from its parameter names.

Registration order stands for execution order, but for the norms of a block, which most classes
register last; a block is everything below one numbered child (``model.layers.7``). A traced profile
would be exact; this is what names alone can tell.
"""

import re

from zero_sizer.models.spec import ModelSpec, Tensor

# A layer that never runs itself: torch's MultiheadAttention asks for what it owns, and DeepSpeed
# gathers that with the attention from then on.
NEVER_RUNS = "NonDynamicallyQuantizableLinear"

_BLOCK = re.compile(r"^(.*?\.?\d+)(?:\.|$)")

_FIRST = ("input_layernorm", "ln_1", "norm1", "ln_attn", "self_attn_layer_norm", "attention_norm")
_LAST = ("post_feedforward_layernorm", "post_mlp_layernorm")
_ATTENTION, _FEED_FORWARD = re.compile("attn|attention"), re.compile("mlp|ffn|feed_forward|moe")
_MIDDLE = re.compile("norm|ln_")


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
    names = list(modules)
    places = {name: number for number, name in enumerate(names)}
    starts = {block: places[name] for name in names[::-1] if (block := block_of(f"{name}."))}
    names.sort(key=lambda name: _key(name, starts.get(block_of(f"{name}."), places[name])))
    order = [tuple(modules[name]) for name in names]
    if spec.arch.tied_embeddings and order:
        order.append(order[0])
    return tuple(order)


def _key(module: str, start: int) -> tuple[int, int]:
    """Where a module runs: its block's place, and its own in a block of attention and MLP."""
    block = block_of(f"{module}.")
    own = module.removeprefix(f"{block}.") if block else ""
    first, _, rest = own.partition(".")
    if not own:
        return start, 0
    if first in _FIRST:
        return start, 0
    if first in _LAST:
        return start, 4
    if not rest and _MIDDLE.search(first):
        return start, 2
    return start, 1 if _ATTENTION.search(first) else 3 if _FEED_FORWARD.search(first) else 2
