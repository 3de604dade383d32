"""The language that tensor layouts are written in, and its expansion to tensors.

A layout is blocks of lines, one line per module that owns tensors, in registration order::

    model.layers.{i}.self_attn.q_proj Linear weight=q,hidden bias=q?attention_bias
    model.rotary_emb {C}RotaryEmbedding ~inv_freq=rotary:float32

``{i}`` is the block's index and ``{C}`` the family's class prefix; ``q,hidden`` are widths (or
plain numbers; ``-`` for a scalar); ``~`` marks a buffer, ``:dtype`` one that keeps its own dtype;
``?flag`` keeps a tensor, or with a space before it the whole line, only where the flag is set, and
``?!flag`` where it is not.
"""

from collections.abc import Iterator, Mapping
from functools import cache

from zero_sizer.models.spec import Tensor
from zero_sizer.units import DType
from zero_sizer.util.records import dataclass

Widths = Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Block:
    """Lines of modules, repeated ``count`` times where that names a width.

    Attributes:
        lines: the layout, see the module's docstring.
        count: width that says how often; once where empty.
    """

    lines: str
    count: str = ""


@dataclass(frozen=True, slots=True)
class _TensorRule:
    key: str
    dims: tuple[str, ...]
    is_buffer: bool
    dtype: DType | None
    condition: str


@dataclass(frozen=True, slots=True)
class _ModuleRule:
    name: str
    module_type: str
    tensors: tuple[_TensorRule, ...]
    condition: str


@cache
def _parse(lines: str) -> tuple[_ModuleRule, ...]:
    return tuple(_parse_line(line.split()) for line in lines.splitlines() if line.strip())


def _parse_line(words: list[str]) -> _ModuleRule:
    condition = next((word[1:] for word in words if word.startswith("?")), "")
    tensors = tuple(_parse_tensor(word) for word in words[2:] if not word.startswith("?"))
    return _ModuleRule(words[0], words[1], tensors, condition)


def _parse_tensor(word: str) -> _TensorRule:
    body, _, condition = word.partition("?")
    body, _, dtype = body.partition(":")
    key, _, dims = body.partition("=")
    return _TensorRule(
        key.removeprefix("~"),
        () if dims == "-" else tuple(dims.split(",")),
        key.startswith("~"),
        DType(dtype) if dtype else None,
        condition,
    )


def expand(
    blocks: tuple[Block, ...], widths: Widths, *, class_prefix: str
) -> Iterator[tuple[bool, Tensor]]:
    """Every tensor of ``blocks`` with whether it is a buffer.

    ``widths`` holds flags too (0 or 1). A flag that differs between the repetitions of a block is
    given per index, as ``name.index``.
    """
    for block in blocks:
        for index in range(widths[block.count] if block.count else 1):
            for rule in _parse(block.lines):
                if _holds(rule.condition, widths, index):
                    name = rule.name.replace("{i}", str(index))
                    module_type = rule.module_type.replace("{C}", class_prefix)
                    yield from _tensors(rule, name, module_type, widths, index)


def _tensors(
    rule: _ModuleRule, name: str, module_type: str, widths: Widths, index: int
) -> Iterator[tuple[bool, Tensor]]:
    for tensor in rule.tensors:
        if _holds(tensor.condition, widths, index):
            shape = tuple(int(dim) if dim.isdigit() else widths[dim] for dim in tensor.dims)
            yield (
                tensor.is_buffer,
                Tensor(
                    f"{name}.{tensor.key}", shape, tensor.dtype, not tensor.is_buffer, module_type
                ),
            )


def _holds(condition: str, widths: Widths, index: int) -> bool:
    if not condition:
        return True
    flag = condition.removeprefix("!")
    value = widths.get(f"{flag}.{index}", widths.get(flag))
    if value is None:
        raise KeyError(flag)
    return bool(value) is not condition.startswith("!")
