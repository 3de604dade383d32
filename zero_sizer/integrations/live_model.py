"""The model of a run as its module lies in memory: partitioned, adapted, frozen, wrapped."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from zero_sizer.errors import ZeroSizerError
from zero_sizer.models.changes import lora, lora_config
from zero_sizer.models.changes import quantization as packing
from zero_sizer.models.changes.records import Freeze
from zero_sizer.models.sources import torch_module
from zero_sizer.models.sources.hf_config import laid_out
from zero_sizer.models.spec import ModelSpec
from zero_sizer.units import DType

_WRAPPERS = ("module", "_orig_mod")  # of engines and DistributedDataParallel, of torch.compile
_WHERE = "the run's model"
_ADAPTER = "default"


def unwrapped(model: Any) -> Any:
    """The module that a user wrote, or peft's."""
    import torch

    while True:
        inner = [m for n in _WRAPPERS if isinstance(m := getattr(model, n, None), torch.nn.Module)]
        if not inner:
            return model
        model = inner[0]


def spec_of(model: Any) -> ModelSpec:
    """The model as its own config and adapter describe it, where that is what lies in memory.

    Then it is answered as the command line answers a config.json; else its tensors are read.

    Raises:
        InputError: it has no parameters, or some have no shape yet.
        UnsupportedError: a tensor's dtype is none that zero_sizer knows.
    """
    module = unwrapped(model)
    live = torch_module.spec_from_module(
        module, name=_name(module), origin=_WHERE, own_dtype=_own_dtype(module)
    )
    try:
        described = _described(module, live)
    except ZeroSizerError:  # an adapter or a quantization that is not modelled
        described = None
    if described is None or _shapes(described) != _shapes(live):
        return live
    return _frozen(described, live)


def _described(module: Any, live: ModelSpec) -> ModelSpec | None:
    """The model by its config, packed and adapted; None where our layouts do not know it."""
    base = _base_of(module)
    if base is None:
        return None
    fields = {**torch_module.config_fields(base), "architectures": [type(base).__name__]}
    spec = laid_out(fields, name=live.name, where=_WHERE)
    if spec is None:
        return None
    stored = fields.get("quantization_config")
    if isinstance(stored, Mapping):
        how = packing.from_fields(stored, _WHERE)
        spec = spec if how is None else packing.with_quantization(spec, how)
    adapter = _adapter_of(module)
    if adapter is not None:
        spec = lora.with_adapter(spec, lora_config.from_fields(adapter, _WHERE))
    return replace(spec, origin=_WHERE)


def _base_of(module: Any) -> Any:
    """The transformers model, under peft's where there is an adapter; None if it is none."""
    get = getattr(module, "get_base_model", None)
    base = get() if callable(get) and hasattr(module, "peft_config") else module
    return base if torch_module.config_fields(base).get("model_type") else None


def _adapter_of(module: Any) -> Mapping[str, Any] | None:
    """Fields of peft's config; sets become lists, as its JSON has them."""
    configs = getattr(module, "peft_config", None)
    if not isinstance(configs, Mapping) or _ADAPTER not in configs:
        return None
    fields = configs[_ADAPTER].to_dict()
    plain = {
        name: sorted(value)
        if isinstance(value, set | frozenset)
        else getattr(value, "value", value)
        for name, value in fields.items()
    }
    return {name: value for name, value in plain.items() if value is not None}


def _frozen(described: ModelSpec, live: ModelSpec) -> ModelSpec:
    """``described``, trained where the module is; frozen parts by their names."""
    trains = {tensor.name: tensor.trainable for tensor in live.parameters}
    off = [t.name for t in described.parameters if t.trainable and not trains[t.name]]
    parameters = tuple(replace(t, trainable=trains[t.name]) for t in described.parameters)
    if parameters == described.parameters:
        return described
    freeze = Freeze(tuple(off), _WHERE) if off else None
    base = described.base or described
    return replace(described, parameters=parameters, freeze=freeze, base=base)


def _shapes(spec: ModelSpec) -> list[tuple[str, tuple[int, ...]]]:
    return [(tensor.name, tensor.shape) for tensor in spec.parameters]


def _name(module: Any) -> str:
    """The folder or repository that it was loaded from, else the class that was made."""
    base = _base_of(module)
    if base is None:
        return type(module).__name__
    named = str(torch_module.config_fields(base).get("_name_or_path") or "").strip("./ ")
    return named.rpartition("/")[2] or type(base).__name__


def _own_dtype(module: Any) -> DType:
    """The dtype of most of its elements."""
    counts: Counter[str] = Counter()
    for parameter in module.parameters():
        text = str(parameter.dtype).removeprefix("torch.")
        counts[text] += int(getattr(parameter, "ds_numel", parameter.numel()))
    known = {dtype.value: dtype for dtype in DType}
    return next((known[t] for t, _ in counts.most_common() if t in known), DType.FP32)
