"""Learned tables of positions: how long a sequence a model takes at all.

transformers 5.23 looks positions up in an embedding in these models; a longer sequence reads past
its end. Rotary, relative and linear-bias positions have no table.
"""

from zero_sizer.models.spec import ModelSpec, Tensor

_TABLES = ("wpe", "position_embedding", "position_embeddings", "embed_positions", "positions_embed")
_OTHER_INPUTS = ("vision", "visual", "image", "audio")
# Positions count on from the padding token's id (create_position_ids_from_input_ids).
_PADDED_FAMILIES = (
    "camembert data2vec-text ibert layoutlmv3 lilt longformer luke markuplm mpnet roberta "
    "roberta-prelayernorm xlm-roberta xlm-roberta-xl xmod"
)
_AFTER_PADDING = frozenset(_PADDED_FAMILIES.split())
_OFFSET = 2  # OPT's and BART's LearnedPositionalEmbedding: the first two rows are not for tokens


def longest_sequence(model: ModelSpec) -> int | None:
    """Tokens of the longest sequence that ``model`` takes; None where no table limits it."""
    rows = [tensor.shape[0] - _unused(tensor, model) for tensor in _tables(model)]
    return min(rows, default=None)


def _tables(model: ModelSpec) -> list[Tensor]:
    return [
        tensor
        for tensor in model.parameters
        if len(tensor.shape) == 2
        and tensor.module.rpartition(".")[2] in _TABLES
        and not any(word in tensor.name for word in _OTHER_INPUTS)
    ]


def _unused(table: Tensor, model: ModelSpec) -> int:
    """Rows in front of the first position's."""
    if table.module_type.endswith("LearnedPositionalEmbedding"):
        return _OFFSET
    padding = model.hf_config.get("pad_token_id")
    if model.arch.family in _AFTER_PADDING and isinstance(padding, int):
        return padding + 1
    return 0
