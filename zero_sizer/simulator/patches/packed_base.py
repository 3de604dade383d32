"""``from_pretrained`` with bitsandbytes' config: layers that hold packed weights, on the GPU.

bitsandbytes itself need not be installed; which layers stay as they are is transformers' own
choice, and what a packed layer allocates is in ``simulator.quantized_layers``.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor

from zero_sizer.errors import UnsupportedError
from zero_sizer.models.changes import quantization as packing
from zero_sizer.models.changes.records import BITSANDBYTES
from zero_sizer.simulator.quantized_layers import quantize, quantized
from zero_sizer.simulator.undo import Patches

_WHERE = "quantization_config"


class Params4bit(FakeTensor):  # type: ignore[misc]  # mypy does not follow torch
    """Weights by the name that peft knows them by: it casts every other to fp32."""


class Int8Params(FakeTensor):  # type: ignore[misc]
    """Likewise of 8 bits."""


_CLASSES = {4: Params4bit, 8: Int8Params}


def load(original: Callable[..., Any], stated: Any, options: dict[str, Any]) -> Any:
    """The model that ``original`` makes, its linear layers packed as ``stated`` says.

    Raises:
        UnsupportedError: another method than bitsandbytes.
    """
    fields = stated if isinstance(stated, dict) else stated.to_dict()
    method = fields.get("quant_method", "bitsandbytes")
    how = packing.from_fields({**fields, "quant_method": getattr(method, "value", method)}, _WHERE)
    if how is None:
        return original(**options)
    if how.method != BITSANDBYTES:
        raise UnsupportedError(
            f"weights quantized by {how.method} are not modelled in a script",
            remedy="`check --task inference --quantization` counts them",
        )
    options.pop("device_map", None)  # bitsandbytes packs as it loads onto this rank's GPU
    found = _without_zero_init(original, options)
    model = found[0] if isinstance(found, tuple) else found
    quantize(model, how.to_json(), _names(model, how.skipped))
    model.to(torch.device("cuda", 0))
    for layer in quantized(model):
        layer.weight.requires_grad_(False)
        layer.weight.__class__ = _CLASSES[how.bits]
    kind = "is_loaded_in_4bit" if how.bits == 4 else "is_loaded_in_8bit"
    setattr(model, kind, True)  # peft asks
    return found


def _without_zero_init(original: Callable[..., Any], options: dict[str, Any]) -> Any:
    """transformers partitions no base that it quantizes."""
    from transformers import modeling_utils

    patches = Patches()
    patches.set(modeling_utils, "is_deepspeed_zero3_enabled", lambda: False)
    try:
        return original(**options)
    finally:
        patches.undo()


def _names(model: Any, skipped: tuple[str, ...] | None) -> list[str]:
    from transformers.quantizers.base import get_keys_to_not_convert
    from transformers.quantizers.quantizers_utils import should_convert_module

    patterns = get_keys_to_not_convert(model) if skipped is None else list(skipped)
    return [
        name
        for name, module in model.named_modules()
        if type(module).__name__ in ("Linear", "Conv1D") and should_convert_module(name, patterns)
    ]
