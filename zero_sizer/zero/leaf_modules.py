"""Modules that stage 3 takes as a whole, with everything inside.

deepspeed 0.19.8 utils/z3_leaf_module.py:apply_zero_leaf_module_config flags them,
runtime/zero/parameter_offload.py:345-356 puts no hooks inside: their parameters are gathered and
released together, and runtime/zero/stage3.py:1533-1559 reduces their gradients when the backward of
the whole is over.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

_EXPERTS_OF = {  # runtime/zero/leaf_module_config.py:11-15, the module around "experts"
    "MixtralSparseMoeBlock": "mixtral",
    "Qwen2MoeSparseMoeBlock": "qwen2_moe",
    "Qwen3MoeSparseMoeBlock": "qwen3_moe",
}


class LeafModules(NamedTuple):
    """Names in ``zero_optimization.leaf_module``.

    Attributes:
        classes: class names, with or without their Python module.
        names: qualified module names.
        name_suffixes: ends of qualified module names.
    """

    classes: tuple[str, ...]
    names: tuple[str, ...]
    name_suffixes: tuple[str, ...]


class Found(NamedTuple):
    """Leaf modules of a model.

    Attributes:
        modules: qualified names, the outermost only.
        missing: what was named and met nothing, or is a class that is not known here.
    """

    modules: tuple[str, ...]
    missing: tuple[str, ...]


NONE = Found((), ())


def find(leaves: LeafModules, types: Mapping[str, str], family: str) -> Found:
    """Look for leaf modules.

    Args:
        leaves: what is named.
        types: qualified name -> class of every module that owns parameters.
        family: Hugging Face's ``model_type``.
    """
    modules = dict.fromkeys(part for name in types for part in _around(name))
    found: dict[str, None] = {}
    missing = []
    for wanted, met in _met(leaves, modules, types, family):
        found.update(dict.fromkeys(met))
        if not met and wanted.rpartition(".")[2] not in _EXPERTS_OF:
            missing.append(wanted)
    return Found(tuple(m for m in found if not _is_inside(m, found)), tuple(missing))


def _met(
    leaves: LeafModules, modules: Iterable[str], types: Mapping[str, str], family: str
) -> Iterator[tuple[str, list[str]]]:
    """What is named, and the modules that it means."""
    for name in leaves.classes:
        short = name.rpartition(".")[2]
        met = [module for module, kind in types.items() if kind == short]
        if _EXPERTS_OF.get(short) == family:
            met += [module for module in modules if f"{module}.experts" in types]
        yield name, met
    for name in leaves.names:
        yield name, [module for module in modules if module == name]
    for suffix in leaves.name_suffixes:
        yield suffix, [module for module in modules if module.endswith(suffix)]


def _around(module: str) -> Sequence[str]:
    """``module`` and what is around it, the model itself apart."""
    parts = module.split(".")
    return [".".join(parts[: depth + 1]) for depth in range(len(parts))]


def _is_inside(module: str, others: Mapping[str, None]) -> bool:
    return any(outer in others for outer in _around(module)[:-1])
