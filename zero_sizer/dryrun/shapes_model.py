"""A model that is nothing but tensors of given names and shapes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

_SMALL = 1e-3  # keeps fp16 gradients finite under the initial loss scale


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
