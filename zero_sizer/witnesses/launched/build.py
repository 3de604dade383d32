"""The model that a rank trains: Hugging Face's, a factory's, or one made of parameter shapes."""

import importlib
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch

_LAYER_COUNTS = ("num_hidden_layers", "num_layers", "n_layer", "num_decoder_layers", "n_layers")
_PER_LAYER = ("layer_types", "mlp_layer_types", "no_rope_layers")
_LAYER_INDEX = re.compile(r"(?:^|\.)(\d+)\.")
_SMALL = 1e-3  # keeps fp16 gradients finite under the initial loss scale


def model(source: Mapping[str, Any], workload: Mapping[str, Any]) -> torch.nn.Module:
    """Build the model named by a task (see ``task.model_source``), in fp32 unless it says else.

    Args:
        source: ``kind`` (``huggingface``, ``factory`` or ``shapes``) and what the kind needs.
        workload: ``checkpointing`` and ``attention`` are read.
    """
    kinds: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any]], torch.nn.Module]] = {
        "huggingface": _huggingface,
        "factory": _factory,
        "shapes": _shapes,
    }
    return kinds[source["kind"]](source, workload)


def _huggingface(source: Mapping[str, Any], workload: Mapping[str, Any]) -> torch.nn.Module:
    import transformers

    fields = dict(source["config"])
    config = transformers.AutoConfig.for_model(fields.pop("model_type"), **fields)
    config.use_cache = False
    # flash-attn needs a GPU; sdpa is what a CPU rank can run in its place.
    config._attn_implementation = "eager" if workload.get("attention") == "eager" else "sdpa"
    names = config.architectures or ()
    cls = getattr(transformers, names[0], None) if names else None
    built: torch.nn.Module = (
        cls(config) if cls is not None else transformers.AutoModelForCausalLM.from_config(config)
    )
    if workload.get("checkpointing"):
        built.gradient_checkpointing_enable()
    built.train()
    return built


def _factory(source: Mapping[str, Any], workload: Mapping[str, Any]) -> torch.nn.Module:
    if "" not in sys.path:
        sys.path.insert(0, "")  # importable from the current folder, as the user's script is
    module, _, name = source["target"].partition(":")
    built = getattr(importlib.import_module(module), name)()
    if not isinstance(built, torch.nn.Module):
        raise TypeError(f"{source['target']} returned {type(built).__name__}, not an nn.Module")
    return built


class _Node(torch.nn.Module):
    """Parameters of given shapes; the output depends on every one of them."""

    def add(self, path: list[str], tensor: Mapping[str, Any]) -> None:
        """Register a parameter (``path`` below this node), making nodes on the way."""
        if len(path) > 1:
            if path[0] not in self._modules:
                self.add_module(path[0], _Node())
            child = self._modules[path[0]]
            assert isinstance(child, _Node)
            child.add(path[1:], tensor)
            return
        dtype = getattr(torch, tensor.get("dtype") or "float32")
        value = torch.full(tuple(tensor["shape"]), _SMALL, dtype=dtype)
        param = torch.nn.Parameter(value, requires_grad=tensor.get("trainable", True))
        self.register_parameter(path[0], param)

    def forward(self, total: torch.Tensor) -> torch.Tensor:
        """``total`` plus the mean of this node's parameters, then of its children's."""
        for param in self._parameters.values():
            if param is not None:
                total = total + param.mean().to(total.dtype) * _SMALL
        for child in self.children():
            total = child(total)
        return total


class ShapesModel(torch.nn.Module):
    """A model with exactly these parameters and no activations worth naming."""

    def __init__(self, tensors: list[Mapping[str, Any]]) -> None:
        super().__init__()
        for tensor in tensors:
            head, *rest = tensor["name"].split(".")
            if not rest:
                head, rest = "root", [head]
            if head not in self._modules:
                self.add_module(head, _Node())
            node = self._modules[head]
            assert isinstance(node, _Node)
            node.add(rest, tensor)

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """A scalar loss; the tokens only make it a function of its input."""
        loss = input_ids.float().mean() * _SMALL
        for child in self.children():
            loss = child(loss)
        return loss


def _shapes(source: Mapping[str, Any], workload: Mapping[str, Any]) -> torch.nn.Module:
    return ShapesModel(list(source["parameters"]))


def cut_config(config: Mapping[str, Any], layers: int) -> dict[str, Any]:
    """A Hugging Face config with at most ``layers`` layers (both halves of an encoder-decoder)."""
    cut = dict(config)
    for name in _LAYER_COUNTS:
        if isinstance(cut.get(name), int):
            cut[name] = min(cut[name], layers)
    for name in _PER_LAYER:
        if isinstance(cut.get(name), list):
            cut[name] = cut[name][:layers]
    return cut


def cut_parameters(tensors: list[dict[str, Any]], layers: int) -> list[dict[str, Any]]:
    """The tensors whose first index in the name is below ``layers``, and those without one."""

    def kept(name: str) -> bool:
        match = _LAYER_INDEX.search(name)
        return match is None or int(match.group(1)) < layers

    return [tensor for tensor in tensors if kept(tensor["name"])]
