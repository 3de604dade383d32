"""Loading without weights in transformers 4.51 to 4.57, whose loader takes other arguments."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def is_this(loader: Callable[..., Any]) -> bool:
    """True if ``PreTrainedModel._load_pretrained_model`` is that of transformers 4."""
    import inspect

    return "load_config" not in inspect.signature(loader).parameters


def loader(materialise: Callable[[Any, dict[str, Any], dict[str, Any]], None]) -> Any:
    """A loader that gives storage to what a checkpoint holds and reports that nothing was missing.

    Args:
        materialise: takes the model, the place of each tensor, and dtypes by patterns of names.
    """

    def load(model: Any, *_: Any, **options: Any) -> tuple[Any, ...]:
        import torch
        from transformers import modeling_utils

        if not modeling_utils.is_deepspeed_zero3_enabled():
            keeps = options.get("keep_in_fp32_regex")
            dtypes = {} if keeps is None else {keeps.pattern: torch.float32}
            places = options.get("device_map") or {"": "cpu"}
            materialise(model, _expanded(places, list(model.state_dict())), dtypes)
        for module in model.modules():
            module._is_hf_initialized = True
        return model, [], [], [], None, []

    return load


def opener(original: Callable[..., Any], no_file: str) -> Callable[..., Any]:
    """``safe_open`` that finds a header in the file that is not there."""

    def open_file(name: Any, *args: Any, **kwargs: Any) -> Any:
        return _empty() if str(name) == no_file else original(name, *args, **kwargs)

    return open_file


@contextmanager
def _empty() -> Iterator[Any]:
    yield _Header()


class _Header:
    """A file of PyTorch's without tensors."""

    def metadata(self) -> dict[str, str]:
        """The framework that wrote it."""
        return {"format": "pt"}

    def keys(self) -> list[str]:
        """No names."""
        return []


def _expanded(places: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """Place of each tensor: that of the longest module name in front of it."""
    found = {}
    for name in names:
        inside = [m for m in places if not m or name == m or name.startswith(f"{m}.")]
        if inside:
            found[name] = places[max(inside, key=len)]
    return found
