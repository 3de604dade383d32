"""Optimizers that the Hugging Face Trainer brings, by the names of its ``optim``.

transformers 5.23 ``training_args.py`` (``OptimizerNames``) and ``trainer_optimizer.py`` (class and
arguments of each); accelerate 1.15 ``utils/deepspeed.py`` (``map_pytorch_optim_to_deepspeed``,
which puts one of DeepSpeed's in its place under optimizer offload).
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache

from zero_sizer.optimizers import table
from zero_sizer.optimizers import torch as torch_optimizers
from zero_sizer.optimizers.table import Optimizer

DEFAULT = "adamw_torch_fused"
_TORCH = {  # name -> class of torch.optim and its arguments
    "adamw_torch": ("AdamW", {}),
    "adamw_torch_fused": ("AdamW", {"fused": True}),
    "sgd": ("SGD", {}),
    "adagrad": ("Adagrad", {}),
    "rmsprop": ("RMSprop", {}),
}
_ALONE: Mapping[str, Optimizer] = {
    "adafactor": table.ADAFACTOR,
    "adamw_bnb_8bit": table.ADAM_8BIT,
    "adamw_8bit": table.ADAM_8BIT,
    "lion_8bit": table.LION_8BIT,
    "lion_32bit": table.LION_32BIT,
    "rmsprop_bnb": table.RMSPROP_32BIT,
    "rmsprop_bnb_8bit": table.RMSPROP_8BIT,
    "rmsprop_bnb_32bit": table.RMSPROP_32BIT,
    "paged_adamw_8bit": table.paged(table.ADAM_8BIT),
    "paged_adamw_32bit": table.paged(table.ADAM_32BIT),
    "paged_lion_8bit": table.paged(table.LION_8BIT),
    "paged_lion_32bit": table.paged(table.LION_32BIT),
    "ademamix": table.ADEMAMIX_32BIT,
    "ademamix_8bit": table.ADEMAMIX_8BIT,
    "paged_ademamix_32bit": table.paged(table.ADEMAMIX_32BIT),
    "paged_ademamix_8bit": table.paged(table.ADEMAMIX_8BIT),
    "adamw_torch_8bit": table.TORCHAO_8BIT,
    "adamw_torch_4bit": table.TORCHAO_4BIT,
    "stable_adamw": table.STABLE_ADAMW,
    "grokadamw": table.GROKADAMW,
    "schedule_free_adamw": table.SCHEDULE_FREE_ADAMW,
    "schedule_free_radam": table.SCHEDULE_FREE_RADAM,
    "schedule_free_sgd": table.SCHEDULE_FREE_SGD,
}
NOT_MODELLED = frozenset(
    {
        *("adamw_torch_xla", "adamw_torch_npu_fused", "adamw_anyprecision"),
        *("apollo_adamw", "apollo_adamw_layerwise"),
        *("galore_adamw", "galore_adamw_8bit", "galore_adafactor", "galore_adamw_layerwise"),
        *("galore_adamw_8bit_layerwise", "galore_adafactor_layerwise", "lomo", "adalomo"),
    }
)
"""Names that transformers knows and whose states are not."""
NAMES = frozenset({*_TORCH, *_ALONE, *NOT_MODELLED})
"""Every name of ``optim``."""
_ON_HOST = {
    "adagrad": table.CPU_ADAGRAD,
    "lion_32bit": table.CPU_LION,
    "paged_lion_32bit": table.CPU_LION,
}


@cache
def row(name: str | None, *, swaps: bool) -> Optimizer | None:
    """Optimizer of an ``optim``; None where its states are not known here.

    Args:
        name: of ``OptimizerNames``; None for the Trainer's default.
        swaps: accelerate puts DeepSpeed's own for host memory in its place, whatever it is.
    """
    name = name or DEFAULT
    if swaps:
        return _ON_HOST.get(name, table.CPU_ADAM)
    found = torch_optimizers.row(*_TORCH[name]) if name in _TORCH else _ALONE.get(name)
    return None if found is None else replace(found, by_client=True)


FLAT = "flat partitions"
MASTERS = "copies of the weights"
REFUSED: Mapping[str, tuple[str, str]] = {
    **dict.fromkeys(
        ("galore_adamw", "galore_adamw_8bit", "galore_adafactor"),
        (FLAT, "IndexError in the first step: GaLore projects matrices, and ZeRO hands it vectors"),
    ),
    **dict.fromkeys(
        ("galore_adamw_layerwise", "galore_adamw_8bit_layerwise", "galore_adafactor_layerwise"),
        ("", "NotImplementedError: layer-wise GaLore does not train on several GPUs"),
    ),
    "apollo_adamw": (
        FLAT, "IndexError in the first step: APOLLO projects matrices, and ZeRO hands it vectors",
    ),
    "apollo_adamw_layerwise": (
        "", "NotImplementedError: layer-wise APOLLO does not train on several GPUs",
    ),
    **dict.fromkeys(
        ("lomo", "adalomo"),
        ("", "NotImplementedError in the first step, at stage 3 AttributeError in its backward: "
        "LOMO updates weights in a backward of its own, and DeepSpeed calls step()"),
    ),
    **dict.fromkeys(
        ("schedule_free_adamw", "schedule_free_radam", "schedule_free_sgd"),
        (MASTERS, "Exception in the first step: the Trainer cannot put it into training mode "
        "through DeepSpeed's wrapper"),
    ),
}  # fmt: skip
"""Names that fail under DeepSpeed 0.19.8 -> what of it they cannot do with ("": any), and how."""
