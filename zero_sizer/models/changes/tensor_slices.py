"""One rank's slice of a model that ``deepspeed.init_inference`` cuts over ranks (AutoTP).

Follows deepspeed 0.19.8: module_inject/auto_tp.py says which layers are cut and how, tp_shard.py
how wide a rank's share is, fusedqkv_utils.py and layers.py what is cut in parts.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from zero_sizer.models.spec import Architecture, ModelSpec, Tensor
from zero_sizer.util.identity import Identity
from zero_sizer.zero.tensor_cut import GRAIN, HEADS, Cut

_ROWS = ("out_proj", "o_proj", "down_proj")
_ROWS_OF = {
    "gpt_neox": "attention.dense",
    "falcon": "self_attention.dense",
    "phi": "self_attn.dense",
}
_NORMS = ("LayerNorm", "layer_norm")
_NORMS_OF_A_BLOCK = (*_NORMS, "ln_1", "ln_2")
_FUSED = ("qkv_proj", "query_key_value", "attn.Wqkv", "self_attn.W_pack", "c_attn")
_WHOLE = ("q_a_proj", "kv_a_proj_with_mqa")
_GATES = ("mlp.gate", "block_sparse_moe.gate")
_KV_HEADS = (
    *("num_key_value_heads", "num_kv_heads", "multi_query_group_num", "n_head_kv", "kv_n_heads"),
    *("num_attention_heads", "n_heads", "attention_heads"),
)


_ASSERTS = ("deberta", "flaubert", "fsmt", "gpt2", "led", "longformer", "xlm", "xlnet")


def refusal(spec: ModelSpec) -> str:
    """DeepSpeed's error for a model that AutoTP does not take; empty where it takes it."""
    if spec.arch.family in _ASSERTS:
        return "AssertionError: AutoTP not supported for model"
    return ""


def unknown(spec: ModelSpec) -> str:
    """Why the slices of a model are not known here; empty where they are."""
    if spec.quantization is not None or spec.adapter is not None:
        return "of packed or adapted layers"
    if spec.arch.decoder_layers or not spec.arch.heads or not _first_block(spec):
        return "of models that are no decoder"
    return ""


def highest(spec: ModelSpec, ranks: int, grain: int = GRAIN) -> tuple[int, ModelSpec]:
    """The rank that holds most, the first of several, and its slice."""
    return _highest(Identity(spec), ranks, grain)


@lru_cache(maxsize=32)
def _highest(spec: Identity, ranks: int, grain: int) -> tuple[int, ModelSpec]:
    found = [of_rank(spec.of, ranks, rank, grain) for rank in range(ranks)]
    rank = max(range(ranks), key=lambda i: (sum(found[i].numels), -i))
    return rank, found[rank]


def of_rank(spec: ModelSpec, ranks: int, rank: int, grain: int = GRAIN) -> ModelSpec:
    """The slice that one of the ranks holds.

    Embeddings, norms, stacked experts and layers outside of blocks stay whole. The head is cut by
    its inputs; one that is tied to an embedding becomes a tensor of its own.

    Args:
        spec: the whole model, neither packed nor adapted; of numbers, its plausible layout.
        ranks: that share it.
        rank: which of them.
        grain: ``tensor_parallel.tp_grain_size``.
    """
    cut = Cut(ranks, rank, grain, _kv_heads(spec))
    reduced = _reduced(spec)
    whole = [replace(tensor, shape=spec.matrix_of(tensor)) for tensor in spec.parameters]
    parameters = [_sliced(tensor, cut, reduced, spec.arch) for tensor in whole]
    if spec.arch.tied_embeddings and not any(_is_head(tensor) for tensor in spec.parameters):
        table = spec.parameters[0]
        head = Tensor("lm_head.weight", table.shape, None, False, "Linear")
        parameters.append(_sliced(head, cut, reduced, spec.arch))
    return replace(
        spec,
        parameters=tuple(parameters),
        arch=_arch(spec.arch, cut, zip(whole, parameters, strict=False)),
        whole=spec,
    )


def _kv_heads(spec: ModelSpec) -> int | None:
    found = (spec.hf_config.get(name) for name in _KV_HEADS)
    stated = next((value for value in found if isinstance(value, int)), None)
    return stated or spec.arch.kv_heads or spec.arch.heads


def _arch(arch: Architecture, cut: Cut, pairs: Iterable[tuple[Tensor, Tensor]]) -> Architecture:
    """Widths of a rank: of its heads, and of the feed-forward that comes last in a block."""
    heads, kv_heads = arch.heads or 0, arch.kv_heads or arch.heads or 0
    divided = cut.kv_heads or kv_heads or 1
    share = cut.share(divided)
    ffn = arch.ffn
    for whole, own in pairs:
        if len(whole.shape) == 2 and whole.shape[0] in (arch.ffn, 2 * (arch.ffn or 0)):
            ffn = own.shape[0] * (arch.ffn or 0) // whole.shape[0]
    return replace(
        arch,
        heads=heads * share // divided,
        kv_heads=kv_heads * share // divided,
        head_dim=arch.head_dim,
        ffn=ffn,
    )


def _sliced(tensor: Tensor, cut: Cut, reduced: frozenset[str], arch: Architecture) -> Tensor:
    name = _called(tensor.module)
    is_bias = tensor.name.endswith(".bias")
    if not tensor.module_type.endswith("Linear") or not (
        is_bias or tensor.name.endswith(".weight")
    ):
        return tensor
    if _is_head(tensor):
        return tensor if is_bias else _with(tensor, 1, cut.width(tensor.shape[1], "lm_head"))
    if name is None or name in _GATES or any(part in name for part in _WHOLE):
        return tensor
    if "gate_up_proj" in name:
        return _with(tensor, 0, 2 * cut.width(tensor.shape[0] // 2, "mlp"))
    if name in reduced or "down_proj" in name:
        return tensor if is_bias else _with(tensor, 1, cut.width(tensor.shape[1], name))
    if any(part in name for part in _FUSED):
        return _with(tensor, 0, sum(map(cut.width, _parts(tensor.shape[0], arch))))
    return _with(tensor, 0, cut.width(tensor.shape[0], name))


def _is_head(tensor: Tensor) -> bool:
    return tensor.module in HEADS and tensor.module_type == "Linear"


def _parts(total: int, arch: Architecture) -> Sequence[int]:
    """Queries, keys and values in one matrix, where DeepSpeed takes them apart (Phi-3, MPT)."""
    if arch.family == "phi3":
        others = (arch.kv_heads or 0) * (arch.head_dim or 0)
        return (total - 2 * others, others, others)
    if arch.family == "mpt":
        return (total // 3,) * 3
    return (total,)


def _with(tensor: Tensor, dimension: int, width: int) -> Tensor:
    shape = list(tensor.shape)
    shape[dimension] = width
    return replace(tensor, shape=tuple(shape))


def _called(module: str) -> str | None:
    """DeepSpeed's name of a module: with the one that holds it, in a block; None outside of them.

    A block's own module is called ``.fc1``.
    """
    parts = module.split(".")
    block = next((i for i, part in enumerate(parts) if part.isdigit()), None)
    if block is None:
        return None
    inside = parts[block + 1 :]
    return ".".join(inside[-2:]) if len(inside) > 1 else "." + "".join(inside)


def _reduced(spec: ModelSpec) -> frozenset[str]:
    """Layers whose outputs are added up over ranks (``AutoTP.tp_parser``): cut by their inputs.

    A layer right before a LayerNorm, and those of some names.
    """
    layers: list[str] = []
    for module, kind in _first_block(spec).items():
        name = _called(module) or ""
        norms = _NORMS_OF_A_BLOCK if name.startswith(".") else _NORMS
        if kind == "LayerNorm" or name.rpartition(".")[2] in norms:
            layers.append("")
        elif kind.endswith("Linear"):
            layers.append(name)
    before = {layers[i - 1] for i, layer in enumerate(layers) if not layer}
    own = _ROWS_OF.get(spec.arch.family)
    named = (n for n in layers if any(p in n for p in _ROWS) or (own is not None and own in n))
    return frozenset([*before, *named]) - {""}


def _first_block(spec: ModelSpec) -> Mapping[str, str]:
    """Modules with parameters of the first block, in order, and their classes."""
    found: dict[str, str] = {}
    for tensor in spec.parameters:
        number = next((part for part in tensor.module.split(".") if part.isdigit()), None)
        if number == "0":
            found.setdefault(tensor.module, tensor.module_type)
    return found
