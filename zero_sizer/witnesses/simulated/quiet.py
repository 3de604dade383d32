"""What a simulated script must not do: load weights, write checkpoints, call services."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from zero_sizer.witnesses.simulated.undo import Patches

VARIABLES = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "WANDB_MODE": "disabled",
    "COMET_MODE": "disabled",
    "MLFLOW_TRACKING_URI": "",
}


@contextmanager
def weightless() -> Iterator[None]:
    """``from_pretrained`` builds from the config's shapes; nothing is saved."""
    import torch
    import transformers
    from deepspeed.runtime.engine import DeepSpeedEngine

    patches = Patches()
    model = transformers.PreTrainedModel
    patches.set(model, "from_pretrained", classmethod(_from_pretrained))
    patches.set(model, "save_pretrained", lambda self, *args, **kwargs: None)
    patches.set(torch, "save", lambda *args, **kwargs: None)
    for name in ("save_checkpoint", "save_16bit_model"):
        patches.set(DeepSpeedEngine, name, lambda self, *args, **kwargs: True)
    try:
        yield
    finally:
        patches.undo()


def _from_pretrained(cls: Any, name: str, /, *args: Any, config: Any = None, **options: Any) -> Any:
    """The model of ``name``'s config.json, in the dtype that loading it would give."""
    if config is None or isinstance(config, str):
        config = cls.config_class.from_pretrained(config or name)
    dtype = options.get("dtype", options.get("torch_dtype", "auto"))
    attention = options.get("attn_implementation") or getattr(config, "_attn_implementation", None)
    chosen = {} if dtype in (None, "auto") else {"dtype": dtype}
    if attention is not None:
        # The flash_attn package needs a GPU; torch's own kernel saves the same tensors.
        chosen["attn_implementation"] = "sdpa" if "flash" in attention else attention
    return cls._from_config(config, **chosen).eval()
