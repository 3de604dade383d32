"""Batches collated with their values, since collators read them: lengths, ends of packed samples.

Only then do they turn fake, as everything else is.
"""

import contextlib
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils.data._utils.fetch import _MapDatasetFetcher

from zero_sizer.simulator.undo import Patches


def install(patches: Patches) -> None:
    """Data sets with a length are read, and their samples collated, on the real host."""
    original = _MapDatasetFetcher.fetch

    def fetch(fetcher: Any, index: Any) -> Any:
        batch = None
        # What needs the simulated GPU, or tensors that the script made before, runs as it did.
        with contextlib.suppress(Exception), _disable_current_modes():
            batch = original(fetcher, index)
        return original(fetcher, index) if batch is None else _without_values(batch)

    patches.set(_MapDatasetFetcher, "fetch", fetch)


def _without_values(batch: Any) -> Any:
    """The batch in fake tensors: the mode that is active counts them."""
    return pytree.tree_map_only(torch.Tensor, _fake, batch)


def _fake(tensor: Any) -> Any:
    if hasattr(tensor, "fake_mode"):
        return tensor
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
