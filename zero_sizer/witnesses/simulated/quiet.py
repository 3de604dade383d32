"""What a simulated script must not do: load weights, write checkpoints, call services."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from zero_sizer.errors import UnsupportedError
from zero_sizer.witnesses.simulated.undo import Patches

_FAMILIES = (socket.AF_INET, socket.AF_INET6)

VARIABLES = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "WANDB_MODE": "disabled",
    "COMET_MODE": "disabled",
    "MLFLOW_TRACKING_URI": "",
}


@contextmanager
def weightless() -> Iterator[None]:
    """``from_pretrained`` builds from shapes; nothing is saved, reported or fetched."""
    import torch
    import transformers
    from deepspeed.runtime.engine import DeepSpeedEngine
    from transformers.integrations import integration_utils

    patches = Patches()
    model = transformers.PreTrainedModel
    patches.set(model, "from_pretrained", classmethod(_from_pretrained))
    patches.set(model, "save_pretrained", lambda self, *args, **kwargs: None)
    patches.set(transformers.GenerationMixin, "generate", _generate)
    patches.set(torch, "save", lambda *args, **kwargs: None)
    for name in ("save_checkpoint", "save_16bit_model"):
        patches.set(DeepSpeedEngine, name, lambda self, *args, **kwargs: True)
    patches.set(torch.utils.data.DataLoader, "__init__", _load_in_process(torch))
    patches.set(socket.socket, "connect", _connect(socket.socket.connect))
    # Before the Trainer is imported, which takes the function by name.
    patches.set(integration_utils, "get_reporting_integration_callbacks", lambda report_to: [])
    try:
        yield
    finally:
        patches.undo()


def _generate(model: Any, *args: object, **kwargs: object) -> None:
    """Without values no sequence ever ends."""
    raise UnsupportedError(
        "generate() is not simulated: when its sequences end depends on values",
        remedy="trainers that generate (GRPO, RLOO, predict_with_generate) cannot be run here",
    )


def _load_in_process(torch: Any) -> Any:
    """``DataLoader.__init__`` without worker processes, which fake tensors cannot leave."""
    original = torch.utils.data.DataLoader.__init__

    def init(loader: Any, *args: Any, **options: Any) -> None:
        if options.get("num_workers"):
            alone = {"num_workers": 0, "prefetch_factor": None, "persistent_workers": False}
            options = {**options, **alone, "timeout": 0, "multiprocessing_context": None}
        original(loader, *args, **options)

    return init


def _connect(original: Any) -> Any:
    """``socket.connect`` within this machine only."""

    def connect(self: socket.socket, address: Any) -> None:
        is_remote = self.family in _FAMILIES and address[0] not in ("127.0.0.1", "::1", "localhost")
        if is_remote:
            raise OSError(f"a simulated run has no network: {address[0]}")
        original(self, address)

    return connect


def _from_pretrained(cls: Any, name: str, /, *args: Any, config: Any = None, **options: Any) -> Any:
    """The model of ``name``'s config.json, in the dtype that loading it would give."""
    if options.get("quantization_config") is not None:
        raise UnsupportedError("from_pretrained with a quantization_config is not simulated")
    if config is None or isinstance(config, str):
        config = cls.config_class.from_pretrained(config or name)
    dtype = options.get("dtype", options.get("torch_dtype", "auto"))
    attention = options.get("attn_implementation") or getattr(config, "_attn_implementation", None)
    chosen = {} if dtype in (None, "auto") else {"dtype": dtype}
    if attention is not None:
        # The flash_attn package needs a GPU; torch's own kernel saves the same tensors.
        chosen["attn_implementation"] = "sdpa" if "flash" in attention else attention
    return cls._from_config(config, **chosen).eval()
