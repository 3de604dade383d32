"""Models that are a ``torch.nn.Module``: read live, or built on the meta device by a factory."""

import importlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from zero_sizer.errors import InputError, UnsupportedError
from zero_sizer.models.layouts.architecture import from_hf_config
from zero_sizer.models.spec import Architecture, ModelSpec, Tensor
from zero_sizer.units import DType

if TYPE_CHECKING:
    import torch

_GATE_NAMES = (".gate_proj.", ".gate_up_proj", ".wi_1.")
_STANDARD_NAMES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")


def import_torch() -> Any:
    """The torch package.

    Raises:
        UnsupportedError: it is not installed.
    """
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise UnsupportedError(
            "this model needs torch, which is not installed",
            remedy="pip install zero-sizer[deepspeed]",
        ) from error


def spec_from_module(
    module: "torch.nn.Module",
    *,
    name: str = "",
    origin: str = "",
    own_dtype: DType = DType.FP32,
) -> ModelSpec:
    """Shapes of a live module; its tensors may lie on the meta device.

    Args:
        module: read, not changed. Tied tensors count once, under their first name; one that
            ``zero.Init`` partitioned has its whole shape.
        name: what reports call it; its class name where empty.
        origin: where it comes from.
        own_dtype: the dtype that the module was built in; tensors of it get dtype None.

    Raises:
        InputError: it has no parameters, or some have no shape yet (lazy modules).
        UnsupportedError: a tensor's dtype is none that zero_sizer knows.
    """
    parameters: list[Tensor] = []
    buffers: list[Tensor] = []
    seen: dict[int, str] = {}
    shared: dict[str, str] = {}
    for path, child in module.named_modules():
        for store, out in ((child._parameters, parameters), (child._buffers, buffers)):
            for key, tensor in store.items():
                if tensor is not None and id(tensor) in seen and store is child._parameters:
                    shared.setdefault(path, seen[id(tensor)])
                if tensor is None or id(tensor) in seen:
                    continue
                qualified = f"{path}.{key}" if path else key
                seen[id(tensor)] = qualified
                out.append(_tensor(qualified, tensor, type(child).__name__, own_dtype))
    if not parameters:
        raise InputError("has no parameters", where=origin or type(module).__name__)
    hf_config = config_fields(module)
    return ModelSpec(
        name=name or type(module).__name__,
        origin=origin or f"module {type(module).__name__}",
        parameters=tuple(parameters),
        buffers=tuple(buffers),
        arch=_architecture(hf_config, parameters),
        hf_config=hf_config,
        shared=shared,
    )


def _tensor(name: str, tensor: Any, module_type: str, own_dtype: DType) -> Tensor:
    if type(tensor).__name__.startswith("Uninitialized"):
        raise InputError(f"{name} has no shape before the first forward (a lazy module)")
    text = str(tensor.dtype).removeprefix("torch.")
    try:
        dtype = DType(text)
    except ValueError as error:
        raise UnsupportedError(f"{name} has dtype {text}, which is not modelled") from error
    if dtype is DType.COMPLEX64 and tensor.requires_grad:  # rotations are, of buffers
        raise UnsupportedError(f"{name} has dtype {text}, which DeepSpeed trains no weight in")
    return Tensor(
        name=name,
        shape=tuple(int(size) for size in getattr(tensor, "ds_shape", tensor.shape)),
        dtype=None if dtype is own_dtype else dtype,
        trainable=bool(tensor.requires_grad),
        module_type=module_type,
    )


def config_fields(module: Any) -> Mapping[str, Any]:
    """The fields of a Hugging Face model's config, under the standard names too."""
    config = getattr(module, "config", None)
    to_dict = getattr(config, "to_dict", None)
    if not callable(to_dict):
        return {}
    fields = dict(to_dict())
    for key in _STANDARD_NAMES:  # the class's attribute_map: GPT-2's hidden_size is n_embd
        value = getattr(config, key, None)
        if value is not None:
            fields[key] = value
    return fields


def _architecture(hf_config: Mapping[str, Any], parameters: list[Tensor]) -> Architecture:
    """Widths of a Hugging Face config; nothing for a module without one that we can read."""
    text = hf_config.get("text_config")  # of a model that sees or hears as well
    fields = text if isinstance(text, Mapping) and "hidden_size" not in hf_config else hf_config
    try:
        arch = from_hf_config(fields)
    except (TypeError, ValueError, ZeroDivisionError):
        return Architecture()
    family = str(hf_config.get("model_type") or arch.family)
    gated = any(part in tensor.name for tensor in parameters for part in _GATE_NAMES)
    return replace(arch, family=family, gated_mlp=arch.gated_mlp or gated)


def load_factory(reference: str) -> ModelSpec:
    """The module that ``package.module:factory`` returns, called with no arguments on meta.

    Raises:
        InputError: it cannot be imported, raises, or returns no module.
        UnsupportedError: torch is not installed.
    """
    torch = import_torch()
    module = build_from_factory(reference, device="meta")
    own = str(torch.get_default_dtype()).removeprefix("torch.")
    name = reference.partition(":")[2]
    return spec_from_module(module, name=name, origin=f"factory {reference}", own_dtype=DType(own))


def build_from_factory(reference: str, *, device: str | None) -> "torch.nn.Module":
    """Calls the factory that ``package.module:factory`` names.

    Args:
        reference: importable from the current folder or PYTHONPATH.
        device: default device while it runs; None leaves torch's.

    Raises:
        InputError: it cannot be imported, raises, or returns no module.
    """
    torch = import_torch()
    with _importable_from_here():
        factory = _import_attribute(reference)
        if isinstance(factory, torch.nn.Module):
            return factory
        if not callable(factory):
            raise InputError(f"is a {type(factory).__name__}, not a function", where=reference)
        module = _call(factory, reference, device)
    if not isinstance(module, torch.nn.Module):
        raise InputError(
            f"returned a {type(module).__name__}, not a torch.nn.Module", where=reference
        )
    return module


def _import_attribute(reference: str) -> Any:
    module_name, _, path = reference.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # the user's module may do anything on import
        raise InputError(
            f"cannot import {module_name}: {_one_line(error)}", where=reference
        ) from error
    for part in path.split("."):
        if not hasattr(found, part):
            raise InputError(f"{module_name} has no {path}", where=reference)
        found = getattr(found, part)
    return found


def _call(factory: Callable[[], Any], reference: str, device: str | None) -> Any:
    torch = import_torch()
    try:
        if device is None:
            return factory()
        with torch.device(device):
            return factory()
    except (Exception, SystemExit) as error:  # likewise
        on = f" on device {device}" if device else ""
        raise InputError(f"raised{on}: {_one_line(error)}", where=reference) from error


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


@contextmanager
def _importable_from_here() -> Iterator[None]:
    """Puts the current folder first on the import path, as ``python -m`` does."""
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)
