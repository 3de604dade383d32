"""A model of which only totals are known: ``params=6.7e9,layers=32,hidden=4096,...``."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from zero_sizer.errors import InputError
from zero_sizer.models.spec import MAX_LAYERS, Architecture, ModelSpec, Tensor
from zero_sizer.util.spelling import did_you_mean, shown

_REQUIRED = ("params", "layers", "hidden")
_OPTIONAL = ("heads", "kv_heads", "ffn", "vocab")
_LARGEST = 10**15  # parameters; nothing built so far has a hundredth of it
_WHERE = "--model"


def load_numbers(text: str) -> ModelSpec:
    """A decoder whose parameters sum exactly to ``params``.

    Embedding, attention and norms take what the widths say; the feed-forward blocks share the rest
    evenly, as two matrices or three (gated), with the output layer tied or not: whichever comes
    closest to ``ffn`` (to 4 x hidden where it is not given). Gated with all widths given, they are
    a Llama's.

    Raises:
        InputError: a number is missing, unknown, not a positive whole number, or does not fit.
    """
    numbers = _parse(text)
    _check_widths(numbers)
    tied, matrices = _closest_shape(numbers)
    return ModelSpec(
        name=f"{_rounded(numbers['params'])} model",
        origin=f"numbers {text.strip()} (tensors laid out plausibly)",
        parameters=tuple(_tensors(numbers, tied=tied, matrices=matrices)),
        arch=Architecture(
            family="llama" if _is_llama(numbers, matrices) else "",
            num_layers=numbers["layers"],
            hidden=numbers["hidden"],
            heads=numbers.get("heads"),
            kv_heads=numbers.get("kv_heads", numbers.get("heads")),
            head_dim=numbers["hidden"] // numbers["heads"] if "heads" in numbers else None,
            ffn=numbers.get("ffn"),
            vocab=numbers.get("vocab"),
            gated_mlp=matrices == 3,
            tied_embeddings=tied,
        ),
        exact_tensors=False,
    )


def _rounded(params: int) -> str:
    """As models are called: 6.7B, 1.2T."""
    unit, size = ("T", 1e12) if params >= 10**12 else ("B", 1e9)
    digits = 3 if params < 1000 * size else 0
    return f"{params / size:.{digits}g}{unit}" if digits else f"{params / size:,.0f}{unit}"


def _parse(text: str) -> dict[str, int]:
    numbers: dict[str, int] = {}
    for part in text.split(","):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or key not in (*_REQUIRED, *_OPTIONAL):
            hint = did_you_mean(key, (*_REQUIRED, *_OPTIONAL))
            known = ", ".join((*_REQUIRED, *_OPTIONAL))
            raise InputError(
                f"{shown(part.strip())} is not one of {known} with a number",
                remedy=hint,
                where=_WHERE,
            )
        if key in numbers:
            raise InputError(f"{key} is given twice", where=_WHERE)
        numbers[key] = _whole(key, value)
    missing = [key for key in _REQUIRED if key not in numbers]
    if missing:
        raise InputError(
            f"numbers for a model need {' and '.join(missing)} too",
            remedy="for example params=6.7e9,layers=32,hidden=4096",
            where=_WHERE,
        )
    return numbers


def _whole(key: str, text: str) -> int:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    largest = MAX_LAYERS if key == "layers" else _LARGEST
    if not 1 <= value <= largest or value != int(value):
        raise InputError(
            f"{key}={shown(text)} is not a whole number from 1 to {largest:,}", where=_WHERE
        )
    return int(value)


def _check_widths(numbers: Mapping[str, int]) -> None:
    hidden, heads = numbers["hidden"], numbers.get("heads")
    kv_heads = numbers.get("kv_heads")
    if heads and hidden % heads:
        raise InputError(f"hidden={hidden} is not a multiple of heads={heads}", where=_WHERE)
    if kv_heads and (not heads or heads % kv_heads):
        raise InputError(f"kv_heads={kv_heads} must divide heads={heads}", where=_WHERE)


def _kv_width(numbers: Mapping[str, int]) -> int:
    heads = numbers.get("heads", 1)
    return numbers["hidden"] // heads * numbers.get("kv_heads", heads)


def _mlp_numel(numbers: Mapping[str, int], *, tied: bool) -> int:
    """Elements that are left for all feed-forward blocks together."""
    hidden, layers = numbers["hidden"], numbers["layers"]
    embeddings = numbers.get("vocab", 0) * hidden * (1 if tied else 2)
    block = 2 * hidden * hidden + 2 * hidden * _kv_width(numbers) + 2 * hidden
    return numbers["params"] - embeddings - layers * block - hidden


def _closest_shape(numbers: Mapping[str, int]) -> tuple[bool, int]:
    """Whether embeddings are tied, and matrices per feed-forward block."""
    hidden, layers = numbers["hidden"], numbers["layers"]
    ffn = numbers.get("ffn", 4 * hidden)

    def distance(shape: tuple[bool, int]) -> int:
        tied, matrices = shape
        return abs(_mlp_numel(numbers, tied=tied) - layers * matrices * hidden * ffn)

    choices = [(False, 3), (False, 2), (True, 3), (True, 2)]
    if "ffn" not in numbers:
        choices = [choice for choice in choices if choice[1] == 2]
    fitting = [c for c in choices if _mlp_numel(numbers, tied=c[0]) >= layers * c[1]]
    if not fitting:
        least = numbers["params"] - _mlp_numel(numbers, tied=True)
        raise InputError(
            f"params={numbers['params']:,} is too few: embedding, attention and norms of these "
            f"widths already have {least:,}",
            where=_WHERE,
        )
    return min(fitting, key=distance)


class _Names(NamedTuple):
    """What the tensors are called, and the class of the norms."""

    embedding: str
    block: str
    attention: tuple[str, str, str, str]
    mlp: tuple[str, ...]
    norms: tuple[str, str]
    norm: str
    output: str
    norm_type: str


_PLAIN = _Names(
    embedding="embedding",
    block="layers",
    attention=("attention.q", "attention.k", "attention.v", "attention.o"),
    mlp=("mlp.0", "mlp.1", "mlp.2"),
    norms=("norm_1", "norm_2"),
    norm="norm",
    output="output",
    norm_type="Norm",
)
_LLAMA = _Names(
    embedding="model.embed_tokens",
    block="model.layers",
    attention=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
    mlp=("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
    norms=("input_layernorm", "post_attention_layernorm"),
    norm="model.norm",
    output="lm_head",
    norm_type="LlamaRMSNorm",
)


def _is_llama(numbers: Mapping[str, int], matrices: int) -> bool:
    """Whether widths and gated blocks are all that a Llama has."""
    return matrices == 3 and {"heads", "ffn", "vocab"} <= numbers.keys()


def _tensors(numbers: Mapping[str, int], *, tied: bool, matrices: int) -> Iterator[Tensor]:
    hidden, layers, vocab = numbers["hidden"], numbers["layers"], numbers.get("vocab", 0)
    kv, budget = _kv_width(numbers), _mlp_numel(numbers, tied=tied)
    names = _LLAMA if _is_llama(numbers, matrices) else _PLAIN
    if vocab:
        yield Tensor(f"{names.embedding}.weight", (vocab, hidden), module_type="Embedding")
    for i in range(layers):
        block = f"{names.block}.{i}"
        for name, rows in zip(names.attention, (hidden, kv, kv, hidden), strict=True):
            yield Tensor(f"{block}.{name}.weight", (rows, hidden), module_type="Linear")
        share = budget * (i + 1) // layers - budget * i // layers
        yield from _mlp([f"{block}.{name}" for name in names.mlp[:matrices]], share, hidden)
        for name in names.norms:
            yield Tensor(f"{block}.{name}.weight", (hidden,), module_type=names.norm_type)
    yield Tensor(f"{names.norm}.weight", (hidden,), module_type=names.norm_type)
    if vocab and not tied:
        yield Tensor(f"{names.output}.weight", (vocab, hidden), module_type="Linear")


def _mlp(names: Sequence[str], numel: int, hidden: int) -> Iterator[Tensor]:
    """The matrices of one block; flat where their numel is not a multiple of hidden."""
    for i, name in enumerate(names):
        part = numel * (i + 1) // len(names) - numel * i // len(names)
        rows_columns = (part // hidden, hidden)
        down = i == len(names) - 1
        shape = (part,) if part % hidden else rows_columns[::-1] if down else rows_columns
        yield Tensor(f"{name}.weight", shape, module_type="Linear")
