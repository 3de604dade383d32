"""``from_pretrained`` as transformers runs it, but for the weights: their shapes are enough.

Every argument goes through transformers' own code (``subfolder``, overrides of the config,
``device_map``, ``output_loading_info``, ...). What is left out is looking for weight files and
reading them, so a folder with a config.json alone will do.
"""

import copy
import functools
from collections.abc import Callable
from typing import Any

import torch

from zero_sizer.simulator.patches import headers, packed_base, pretrained_4
from zero_sizer.simulator.undo import Patches

_NO_FILE = "no-weights.safetensors"


def install(patches: Patches) -> None:
    """Replaces how transformers finds and reads weights."""
    from transformers import PreTrainedModel, modeling_utils

    find = modeling_utils._get_resolved_checkpoint_files
    patches.set(modeling_utils, "_get_resolved_checkpoint_files", _found_or_not(find))
    read = modeling_utils.load_state_dict
    patches.set(modeling_utils, "load_state_dict", _read_or_not(read))
    if pretrained_4.is_this(PreTrainedModel._load_pretrained_model):
        load, reads = pretrained_4.loader(_materialise), modeling_utils.safe_open
        patches.set(modeling_utils, "safe_open", pretrained_4.opener(reads, _NO_FILE))
    else:
        load = _without_weights
    patches.set(PreTrainedModel, "_load_pretrained_model", staticmethod(load))
    original = PreTrainedModel.from_pretrained.__func__
    patches.set(PreTrainedModel, "from_pretrained", classmethod(_from_pretrained(original)))


def _from_pretrained(original: Callable[..., Any]) -> Callable[..., Any]:
    def from_pretrained(cls: Any, *args: Any, config: Any = None, **options: Any) -> Any:
        # The flash_attn package needs a GPU; torch's own kernel saves the same tensors.
        if "attn_implementation" in options:
            options["attn_implementation"] = _without_flash(options["attn_implementation"])
        if "flash" in str(getattr(config, "_attn_implementation", "")):
            config = copy.deepcopy(config)
            config._attn_implementation = "sdpa"
        stated = options.pop("quantization_config", None)
        load = functools.partial(original, cls, *args, config=config)
        return load(**options) if stated is None else packed_base.load(load, stated, options)

    return from_pretrained


def _without_flash(chosen: Any) -> Any:
    if isinstance(chosen, dict):
        return {name: _without_flash(value) for name, value in chosen.items()}
    return "sdpa" if isinstance(chosen, str) and "flash" in chosen else chosen


def _found_or_not(original: Callable[..., Any]) -> Callable[..., Any]:
    def resolve(*args: Any, **kwargs: Any) -> Any:
        try:
            return original(*args, **kwargs)
        except OSError:  # the config was found: the weights may stay where they are
            return [_NO_FILE], None

    return resolve


def _read_or_not(original: Callable[..., Any]) -> Callable[..., Any]:
    """transformers reads a file's first weights for ``dtype="auto"``."""

    def load_state_dict(checkpoint_file: Any, *args: Any, **kwargs: Any) -> Any:
        if str(checkpoint_file) == _NO_FILE:
            return {"none": torch.empty(0)}
        if str(checkpoint_file).endswith(".safetensors"):
            return headers.load_file(checkpoint_file)
        return original(checkpoint_file, *args, **kwargs)

    return load_state_dict


def _without_weights(
    model: Any, state_dict: Any, checkpoint_files: Any, load_config: Any, expected_keys: Any = None
) -> tuple[Any, None]:
    """The model with storage for what a checkpoint holds; nothing was missing from it."""
    from transformers import modeling_utils
    from transformers.utils.loading_report import LoadStateDictInfo

    names = ("missing_keys", "unexpected_keys", "mismatched_keys", "skipped_pp_keys")
    info = LoadStateDictInfo(**{name: set() for name in names}, error_msgs=[], conversion_errors={})
    plan = load_config.dtype_plan or {}
    keys = list(model.state_dict())
    places = modeling_utils.expand_device_map(load_config.device_map or {"": "cpu"}, keys)
    if not modeling_utils.is_deepspeed_zero3_enabled():
        _materialise(model, places, plan)
    for tensor in (*model.parameters(), *model.buffers()):
        tensor._is_hf_initialized = True
    return info, None


def _materialise(model: Any, places: dict[str, Any], dtypes: dict[str, Any]) -> None:
    """Tensors on the meta device get storage where they belong, tied ones once."""
    made: dict[int, Any] = {}
    for prefix, module in model.named_modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                path = f"{prefix}.{name}" if prefix else name
                if tensor is None or tensor.device.type != "meta" or path not in places:
                    continue
                if places[path] == "disk":
                    continue
                if id(tensor) not in made:
                    made[id(tensor)] = _like(tensor, places[path], _dtype_of(path, tensor, dtypes))
                tensors[name] = made[id(tensor)]


def _dtype_of(path: str, tensor: Any, dtypes: dict[str, Any]) -> Any:
    """A model may keep some of its modules in fp32."""
    import re

    if tensor.is_floating_point():
        for pattern, dtype in dtypes.items():
            if re.search(pattern, path):
                return dtype
    return tensor.dtype


def _like(tensor: Any, place: Any, dtype: Any) -> Any:
    where = torch.device("cuda", place) if isinstance(place, int) else torch.device(place)
    empty = torch.empty_like(tensor, device=where, dtype=dtype)
    if isinstance(tensor, torch.nn.Parameter):
        return torch.nn.Parameter(empty, requires_grad=tensor.requires_grad)
    return empty
