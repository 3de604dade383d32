"""Work of one micro step, computed and moved, per token: a closed form until profiles are traced.

``work_of`` is the one function a traced FLOP profile would replace. Matrix products are counted
tensor by tensor (2 FLOPs per element and pass); attention and the elementwise operations come from
the widths (Korthikanti et al., arXiv:2205.05198, appendix A and section 4).
"""

from functools import lru_cache
from math import prod

from zero_sizer.activations.block_sizes import num_layers
from zero_sizer.activations.execution import block_of
from zero_sizer.models.spec import Architecture, ModelSpec, Tensor
from zero_sizer.util.identity import Identity
from zero_sizer.util.records import dataclass

_BIDIRECTIONAL = frozenset({"bert", "roberta", "t5", "mt5", "electra", "deberta-v2"})
# 16-bit elements that eager kernels move, forward and backward, less those of a fused kernel (2 and
# 5, 2 and 2), counted in LlamaRMSNorm.forward and apply_rotary_pos_emb (transformers 5.23
# models/llama/modeling_llama.py): the norm works on an fp32 copy of its input.
EAGER_NORM = (18 - 2, 42 - 5)
EAGER_ROTATION = (10 - 2, 15 - 2)
_NORMS_AFTER_MLP = ("post_feedforward_layernorm", "post_mlp_layernorm")
_NOT_ROTATING = frozenset({"bert", "gpt2", "opt", "bloom", "t5", "mt5", "mpt", "roberta"})


@dataclass(frozen=True, kw_only=True)
class Work:
    """Counts per token; a pass is a forward, or one of the two products of a backward.

    Attributes:
        block_flops: one pass of the matrix products inside blocks, which checkpointing repeats.
        head_flops: one pass of those outside.
        last_flops: one pass of the products that end their blocks, and that a checkpoint which
            stops early does not repeat.
        frozen_share: share of the products whose weight needs no gradient.
        operand_elements: elements that one pass reads and writes for its products.
        head_operand_elements: the same outside blocks.
        last_operand_elements: the same of the products that end their blocks.
        weight_elements: elements of the weights that one pass reads, whatever the tokens.
        attention_flops: scores and values of one forward, for one token of context.
        attention_share: share of the square that a fused kernel computes: causal is half.
        elementwise_forward: elements moved by norms, activations and residuals.
        elementwise_backward: the same backward.
        eager_forward: elements that transformers' own norms and rotation move beyond that.
        eager_backward: the same backward.
        score_width: attention matrices' elements for one token of context.
    """

    block_flops: float
    head_flops: float
    last_flops: float
    frozen_share: float
    operand_elements: float
    head_operand_elements: float
    last_operand_elements: float
    weight_elements: float
    attention_flops: float
    attention_share: float
    elementwise_forward: float
    elementwise_backward: float
    eager_forward: float
    eager_backward: float
    score_width: float


def work_of(spec: ModelSpec) -> Work:
    """The counts of a model."""
    return _work(Identity(spec))


@lru_cache(maxsize=64)
def _work(identity: Identity) -> Work:
    spec: ModelSpec = identity.of
    products = products_of(spec)
    inside = [product for product in products if product.in_block]
    outside = [product for product in products if not product.in_block]
    flops = sum(product.flops for product in products)
    arch = spec.arch
    last = list({p.block: p for p in inside}.values()) if ends_with_product(spec) else []
    biases = sum(t.numel for t in spec.parameters if _is_bias(t))
    norms = sum(t.numel for t in spec.parameters if is_rms_norm(t)) if arch.gated_mlp else 0
    rotated = num_layers(arch) * rotated_width(arch)
    return Work(
        block_flops=sum(product.flops for product in inside),
        head_flops=sum(product.flops for product in outside),
        last_flops=sum(product.flops for product in last),
        frozen_share=sum(p.flops for p in products if not p.trainable) / flops if flops else 0.0,
        operand_elements=sum(product.operands for product in inside),
        head_operand_elements=sum(product.operands for product in outside),
        last_operand_elements=sum(product.operands for product in last),
        weight_elements=sum(product.weights for product in products),
        attention_flops=4.0 * num_layers(arch) * query_width(arch),
        attention_share=1.0 if arch.family in _BIDIRECTIONAL else 0.5,
        elementwise_forward=num_layers(arch) * elementwise(arch, backward=False),
        elementwise_backward=num_layers(arch) * elementwise(arch, backward=True) + biases,
        eager_forward=EAGER_NORM[0] * norms + EAGER_ROTATION[0] * rotated,
        eager_backward=EAGER_NORM[1] * norms + EAGER_ROTATION[1] * rotated,
        score_width=float(num_layers(arch) * (arch.heads or 0)),
    )


def products_of(spec: ModelSpec) -> list["_Product"]:
    """Matrix products of a model, a tied head's included."""
    found = [_Product(spec, tensor) for tensor in spec.parameters if _is_product(spec, tensor)]
    return found + _tied_head(spec)


def gathers(spec: ModelSpec, bucket: int) -> int:
    """All-gathers of every weight, when each brings whole weights of ``bucket`` elements or more.

    Source: runtime/zero/partitioned_param_coordinator.py, fetch_sub_module.
    """
    return _gathers(Identity(spec), bucket)


@lru_cache(maxsize=256)
def _gathers(identity: Identity, bucket: int) -> int:
    found, held = 0, bucket
    for numel in identity.of.numels:
        if held >= bucket:
            found, held = found + 1, 0
        held += numel
    return found


class _Product:
    """The matrix product of one weight."""

    def __init__(self, spec: ModelSpec, tensor: Tensor, in_block: bool | None = None) -> None:
        arch = spec.arch
        is_expert = bool(arch.num_experts) and ".experts." in f".{tensor.name}."
        share = arch.experts_per_token / arch.num_experts if is_expert else 1.0
        shape, numel = spec.matrix_of(tensor), prod(tensor.matrix)
        copies = numel // (shape[-1] * shape[-2])  # stacked experts
        self.block = block_of(tensor.name)
        self.in_block = bool(self.block) if in_block is None else in_block
        self.trainable = tensor.trainable
        self.flops = 2.0 * numel * share
        self.operands = float(shape[-1] + shape[-2]) * copies * share
        if tensor.module_type.startswith("Conv") and len(shape) > 2:  # (out, in, a kernel's sides)
            self.operands = shape[0] + numel / shape[0]
        self.name = tensor.name
        self.weights = numel


def _is_product(spec: ModelSpec, tensor: Tensor) -> bool:
    shape = spec.matrix_of(tensor)
    return len(shape) >= 2 and 0 not in shape and "Embedding" not in tensor.module_type


def _is_bias(tensor: Tensor) -> bool:
    return len(tensor.shape) == 1 and tensor.module_type in ("Linear", "Conv1D")


def is_rms_norm(tensor: Tensor) -> bool:
    """True for the weight of a norm in a block, where such norms have no bias."""
    return len(tensor.shape) == 1 and "norm" in tensor.name and bool(block_of(tensor.name))


def ends_with_product(spec: ModelSpec) -> bool:
    """True if nothing after the last product of a block is kept for its backward.

    Torch's non-reentrant checkpoint stops once all that was kept is there again, before that
    product (torch.utils.checkpoint, set_checkpoint_early_stop). A norm or dropout after it, and
    the weights of experts' outputs, keep something later.
    """
    arch = spec.arch
    if arch.num_experts or arch.dropout or arch.family in _BIDIRECTIONAL:
        return False
    return not any(word in t.name for t in spec.parameters for word in _NORMS_AFTER_MLP)


def _tied_head(spec: ModelSpec) -> list[_Product]:
    """The head that shares the embedding's weight: listed once, multiplied all the same."""
    if not spec.arch.tied_embeddings:
        return []
    vocab, hidden = spec.arch.vocab or 0, spec.arch.hidden
    found = [
        t
        for t in spec.parameters
        if len(t.shape) == 2 and t.shape[0] >= vocab and t.shape[1] == hidden
        if not _is_product(spec, t)
    ]
    return [_Product(spec, tensor, in_block=False) for tensor in found[:1]]


def query_width(arch: Architecture) -> int:
    """Elements of a token's queries."""
    heads = arch.heads or 0
    return heads * (arch.head_dim or ((arch.hidden or 0) // heads if heads else 0))


def _kv_width(arch: Architecture) -> int:
    return (arch.kv_heads or arch.heads or 0) * (arch.head_dim or 0)


def rotated_width(arch: Architecture) -> int:
    """Elements of a layer's queries and keys, where they are rotated."""
    return 0 if arch.family in _NOT_ROTATING else query_width(arch) + _kv_width(arch)


def elementwise(arch: Architecture, *, backward: bool) -> float:
    """Elements read and written per token and layer by fused kernels.

    Forward: two norms (read, write), two residuals (read twice, write), the activation (read and
    write; a gated one also multiplies), the rotation of queries and keys. Backward: two norms (a
    kernel for the input's gradient, one for the weight's), the gradients of residuals added, the
    activation, the gradients of queries, keys and values joined, and attention's own (its output
    and gradient read; that of the queries summed in fp32, and cast). Biases' gradients come on top.
    """
    hidden = arch.hidden or 0
    ffn = arch.ffn or 4 * hidden
    if arch.num_experts:
        ffn = (arch.expert_ffn or ffn) * max(arch.experts_per_token, 1)
    query, kv_width = query_width(arch), _kv_width(arch)
    rotation = 2 * rotated_width(arch)
    if backward:
        norms, residuals, attention = 10 * hidden, 6 * hidden, 7 * query
        joined = 2 * (query + 2 * kv_width) + (3 * hidden if arch.gated_mlp else 0)
        activation = (8 if arch.gated_mlp else 3) * ffn
        return norms + residuals + activation + joined + attention + rotation
    return 10 * hidden + (5 if arch.gated_mlp else 2) * ffn + rotation
