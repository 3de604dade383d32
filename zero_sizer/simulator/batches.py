"""Batches as a model's feed says (``zero_sizer.models.feeds``), on a simulated or a real device."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import _disable_current_modes

from zero_sizer.models.feeds import Feed, Input
from zero_sizer.models.feeds.records import TOKENS
from zero_sizer.simulator import values


def batch(
    feed: Feed, samples: int, tokens: int, where: torch.device, dtype: torch.dtype
) -> dict[str, Any]:
    """Keyword arguments of one forward.

    Args:
        feed: what a sample brings.
        samples: of the batch.
        tokens: of each.
        where: device.
        dtype: of what is no integer, as the Trainer casts it for DeepSpeed.
    """
    found: dict[str, Any] = {}
    for given in feed.inputs:
        name, _, key = given.name.partition(".")
        made = _tensor(given, samples, tokens, where, dtype)
        if key:
            found.setdefault(name, {})[key] = made
        else:
            found[name] = made
    return {**found, **feed.options}


def _tensor(
    given: Input, samples: int, tokens: int, where: torch.device, dtype: torch.dtype
) -> Any:
    sizes = [tokens if size == TOKENS else int(size) for size in given.shape]
    shape = (given.num_rows(samples), *sizes)
    made = torch.zeros(shape, dtype=torch.long if given.is_integer else dtype, device=where)
    if not given.begins:
        return made
    if type(made) is FakeTensor:
        with _disable_current_modes():
            values.hold(made, _begin(torch.zeros(shape, dtype=made.dtype), given.begins))
        return made
    return _begin(made, given.begins)


def _begin(tensor: Any, begins: Sequence[tuple[int, int]]) -> Any:
    start = 0
    for value, count in begins:
        tensor[..., start : start + count] = value
        start += count
    return tensor


def loss_of(output: Any, feed: Feed | None = None, given: Mapping[str, Any] | None = None) -> Any:
    """The loss in what a model returned: a tensor, an object with ``.loss``, or a tuple.

    A denoiser's is the mean square of its error (diffusers
    examples/text_to_image/train_text_to_image_sdxl.py: mse_loss of both in fp32).
    """
    if feed is not None and feed.target and given is not None:
        found = output[0] if isinstance(output, tuple) else output.sample
        target = torch.zeros_like(given[feed.target])
        if target.shape != found.shape:
            target = target[:, : found.shape[1]]
        return torch.nn.functional.mse_loss(found.float(), target.float(), reduction="mean")
    if hasattr(output, "loss"):
        return output.loss
    return output[0] if isinstance(output, tuple | list) else output
