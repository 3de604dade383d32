"""Attention masks that padded or packed sequences need and equally long ones do without.

transformers then builds a boolean mask of batch x 1 x sequence x sequence (masking_utils.py,
sdpa_mask), which lives as long as the model's forward, or, where blocks are recomputed, until the
first block's backward is over. ``scaled_dot_product_attention`` cannot use its flash kernel: every
block turns the mask into an additive one of the model's dtype, and repeats keys and values for all
heads (integrations/sdpa_attention.py, use_gqa_in_sdpa); both are saved for backward.
"""

from collections.abc import Callable

from zero_sizer.activations.checkpointing import Sections, by_block, moved
from zero_sizer.activations.levels import Activations, ComposedPart, MicroStep, PartLevels
from zero_sizer.models.spec import Architecture
from zero_sizer.units import DType, num_bytes
from zero_sizer.util.records import dataclass

EQUAL, PADDED, PACKED = "equal", "padded", "packed"

# Families whose blocks, traced with and without a mask, differ by exactly this.
TRACED = frozenset({"llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe", "gpt2", "opt"})

_INDEX = 8  # bytes


@dataclass(frozen=True, kw_only=True)
class Mask:
    """Bytes that masks add.

    Attributes:
        shared: the boolean mask.
        per_block: what each block saves.
    """

    shared: int = 0
    per_block: int = 0


def sdpa_mask(arch: Architecture, batch: int, seq_len: int, dtype: DType) -> Mask:
    """The masks of ``batch`` samples of ``seq_len`` tokens with sdpa."""
    heads, head_dim = arch.heads or 0, arch.head_dim or 0
    repeated = 2 * (heads - (arch.kv_heads or heads)) * head_dim * batch * seq_len
    square = batch * seq_len * seq_len
    return Mask(shared=square, per_block=num_bytes(square + repeated, dtype))


def flash_copies(arch: Architecture, batch: int, seq_len: int, dtype: DType) -> Mask:
    """Padded samples with flash attention, none of their tokens being padding: the most there is.

    Every block copies queries, keys and values without the padding, which are saved instead, and
    puts the output back between it: one output more, and where each token came from
    (modeling_flash_attention_utils.py, _upad_input).
    """
    tokens = batch * seq_len
    output = num_bytes(tokens * (arch.heads or 0) * (arch.head_dim or 0), dtype)
    return Mask(shared=tokens, per_block=output + _INDEX * tokens)


def masked(step: MicroStep, mask: Mask, recomputes: Callable[[int], bool] | None) -> Activations:
    """A step with masks.

    Args:
        step: without.
        mask: what to add.
        recomputes: which blocks are checkpointed; None: none. The first one then is.
    """

    def kind(number: int) -> tuple[bool, bool]:
        return (recomputes is not None and recomputes(number), number == 0)

    def make(number: int, part: PartLevels) -> Sections:
        saved = mask.per_block
        if recomputes is None or not recomputes(number):
            return (
                moved(part.forward, within=saved, end=saved),
                moved(part.backward, end=-saved),
            )
        gone = 0 if number else -mask.shared
        return moved(part.forward, within=saved), moved(part.backward, within=saved, end=gone)

    first, *parts = by_block(step, kind, make)
    begun = moved(first.forward, within=mask.shared, end=mask.shared)
    parts = [ComposedPart.like(first, forward=begun), *parts]
    if recomputes is None:
        last = parts[-1]
        over = moved(last.forward, within=-mask.shared, end=-mask.shared)
        parts[-1] = ComposedPart.like(last, forward=over)
    return Activations(tuple(parts))
