"""The model that a rank trains: a user's, or one made of parameter shapes."""

from collections.abc import Iterable, Mapping
from typing import Any

import deepspeed
import torch

from zero_sizer.dryrun import build_model as scripts
from zero_sizer.dryrun.simulated.request import Request

_SMALL = 1e-3  # keeps fp16 gradients finite under the initial loss scale


def build(task: Mapping[str, Any]) -> tuple[Any, Any]:
    """The model and the client's optimizer (None where the config names one).

    Both are made as the simulated run makes them, so that the two can be compared.

    Args:
        task: ``RankTask`` as JSON values.
    """
    source, workload = task["model"], task["workload"]
    request = Request(
        config=task["config"],
        hf_config=source.get("config", {}),
        factory=source.get("target", ""),
        checkpointing=bool(workload.get("checkpointing")),
        checkpointing_how=workload.get("checkpointing_how", {}),
        attention=workload.get("attention") or "sdpa",
        zero_init=bool(workload.get("zero_init")),
        built_dtype=workload.get("built_dtype") or "",
        lora=source.get("lora"),
        freeze=tuple(source.get("freeze", ())),
    )
    model = (
        _shapes_model(task)
        if source["kind"] == "shapes"
        else scripts.build(request, with_values=True)
    )
    return model, scripts.client_optimizer(request, model)


class _Node(torch.nn.Module):  # type: ignore[misc]  # mypy does not follow torch
    """A module that owns parameters and has children; its output depends on all of them."""

    def forward(self, total: torch.Tensor) -> torch.Tensor:
        """``total`` plus the mean of each of this node's parameters, then of its children's."""
        for param in self._parameters.values():
            total = total + param.mean().to(total.dtype) * _SMALL
        for child in self.children():
            total = child(total)
        return total


class ShapesModel(torch.nn.Module):  # type: ignore[misc]  # mypy does not follow torch
    """A model with exactly these parameters, in this order, and no activations worth naming."""

    def __init__(self, tensors: Iterable[Mapping[str, Any]]) -> None:
        super().__init__()
        for tensor in tensors:
            *path, name = tensor["name"].split(".")
            self._node(path or ["root"]).register_parameter(name, _parameter(tensor))

    def _node(self, path: Iterable[str]) -> Any:
        node: Any = self
        for part in path:
            if part not in node._modules:
                node.add_module(part, _Node())
            node = node._modules[part]
        return node

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """A scalar loss; the tokens only make it a function of its input."""
        loss = input_ids.float().mean() * _SMALL
        for child in self.children():
            loss = child(loss)
        return loss


def _parameter(tensor: Mapping[str, Any]) -> torch.nn.Parameter:
    dtype = getattr(torch, tensor.get("dtype") or "float32")
    value = torch.full(tuple(tensor["shape"]), _SMALL, dtype=dtype)
    return torch.nn.Parameter(value, requires_grad=tensor.get("trainable", True))


def _shapes_model(task: Mapping[str, Any]) -> ShapesModel:
    parameters = task["model"]["parameters"]
    if not task["workload"].get("zero_init"):
        return ShapesModel(parameters)
    with deepspeed.zero.Init(config_dict_or_path=dict(task["config"])):
        return ShapesModel(parameters)
