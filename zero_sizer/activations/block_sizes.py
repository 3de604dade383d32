"""Activations of a transformer in closed form, in elements per token.

Korthikanti et al., arXiv:2205.05198, section 4.1: a layer stores sbh(34 + 5as/h) bytes at 16 bits.
Counted in elements instead, with the masks of dropout apart, its 34 is 16 elements of 2 bytes and 2
mask bytes; the terms below are the same ones written for any width, number of key/value heads and
gated MLPs. What an implementation keeps beyond the paper (fp32 copies in RMSNorm, for one) is not
in it: ``error`` has measured bounds.
"""

from typing import NamedTuple

from zero_sizer.models.spec import Architecture
from zero_sizer.units import DType, num_bytes
from zero_sizer.util.records import dataclass


@dataclass(frozen=True, kw_only=True)
class LayerElements:
    """Elements that one layer saves for backward, per token.

    Attributes:
        linear: tensors as long as the sequence.
        mask_bytes: dropout masks, one byte an element.
        scores: attention matrices (heads x sequence), only without flash attention.
        score_mask_bytes: the dropout mask of the scores, one byte an element.
    """

    linear: int
    mask_bytes: int
    scores: int
    score_mask_bytes: int


def layer_elements(arch: Architecture, seq_len: int) -> LayerElements:
    """Elements per token that one layer saves, attention matrices given for ``seq_len``."""
    hidden = arch.hidden or 0
    heads = arch.heads or 0
    head_dim = arch.head_dim or (hidden // heads if heads else 0)
    query = heads * head_dim if heads else hidden  # how many heads share it does not matter
    key_value = (arch.kv_heads or heads) * head_dim if heads else hidden
    ffn = _active_ffn(arch)
    norms, qkv_input, mlp_input = 2 * hidden, hidden, hidden
    mlp = (4 if arch.gated_mlp else 2) * ffn
    attention = 2 * query + 2 * key_value  # Q, attention output; K, V
    dropped = arch.dropout > 0
    return LayerElements(
        linear=norms + qkv_input + mlp_input + attention + mlp,
        mask_bytes=2 * hidden if dropped else 0,
        scores=(2 if dropped else 1) * heads * seq_len,
        score_mask_bytes=heads * seq_len if dropped else 0,
    )


def _active_ffn(arch: Architecture) -> int:
    if arch.num_experts:
        return (arch.expert_ffn or arch.ffn or 0) * max(arch.experts_per_token, 1)
    return arch.ffn or 4 * (arch.hidden or 0)


def num_layers(arch: Architecture) -> int:
    """Layers of encoder and decoder together."""
    return (arch.num_layers or 0) + (arch.decoder_layers or 0)


class Error(NamedTuple):
    """How far the closed form may be off, in bytes.

    Attributes:
        below: the most by which a job can need less.
        above: the most by which it can need more.
    """

    below: int
    above: int


# Of the blocks' bytes in closed form: what transformers' classes of the traced families keep beyond
# it and how far below it they stay, with and without checkpointing, at 512 and 2048 tokens and
# each attention that they have, with eager attention up to 131,072 (docs/limits.md,
# tests/activations/test_closed_form.py).
_ABOVE, _ABOVE_WITH_EXPERTS, _BELOW = 0.8, 1.35, 0.7
# Of eager attention's scores: softmax's copy in fp32 (and Gemma 2's caps) in each block that is
# kept, and in the block that runs backward their gradients in both precisions.
_KEPT_SCORES, _PASSING_SCORES = 3.1, 3.0


def error(
    arch: Architecture, blocks_bytes: int, dtype: DType, *, kept_scores: int = 0, scores: int = 0
) -> Error:
    """Bounds of the closed form's error.

    Args:
        arch: the model's widths.
        blocks_bytes: what the blocks that are alive at once keep, in closed form.
        dtype: of weights and activations.
        kept_scores: how much of ``blocks_bytes`` are eager attention's scores.
        scores: those of one block.

    Two tensors of the vocabulary's size are added: capped logits are saved once more, and one block
    of few tokens that runs again holds more than the shares say.
    """
    vocabulary = 2 * num_bytes((arch.vocab or 0) * (arch.hidden or 0), dtype)
    share = _ABOVE_WITH_EXPERTS if arch.num_experts else _ABOVE
    above = share * (blocks_bytes - kept_scores)
    above += _KEPT_SCORES * kept_scores + _PASSING_SCORES * scores
    return Error(below=int(_BELOW * blocks_bytes) + vocabulary, above=int(above) + vocabulary)


def block_bytes(arch: Architecture, *, tokens: int, seq_len: int, dtype: DType, eager: bool) -> int:
    """Bytes that one layer saves of so many tokens; scores with eager attention alone."""
    layer = layer_elements(arch, seq_len)
    found = num_bytes(tokens * layer.linear, dtype) + tokens * layer.mask_bytes
    scores = score_bytes(arch, tokens=tokens, seq_len=seq_len, dtype=dtype) if eager else 0
    return found + scores


def score_bytes(arch: Architecture, *, tokens: int, seq_len: int, dtype: DType) -> int:
    """Bytes of one layer's scores under eager attention, dropout's mask included."""
    layer = layer_elements(arch, seq_len)
    return num_bytes(tokens * layer.scores, dtype) + tokens * layer.score_mask_bytes
