"""Actions that a simulated script must not take: load weights, write checkpoints, call services."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zero_sizer.errors import UnsupportedError
from zero_sizer.simulator.undo import Patches

_LAUNCHERS = ("torchrun", "torch.distributed.run", "deepspeed", "accelerate", "mpirun", "srun")
_FAMILIES = (socket.AF_INET, socket.AF_INET6)

NO_ENGINE = (
    "transformers' Trainer wants --deepspeed FILE, accelerate a DeepSpeedPlugin or its launcher "
    "line: -- accelerate launch --config_file FILE train.py"
)
VARIABLES = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "WANDB_MODE": "disabled",
    "COMET_MODE": "disabled",
    "MLFLOW_TRACKING_URI": "",
}


@contextmanager
def weightless(notes: list[str], *, generate_tokens: int | None = None) -> Iterator[None]:
    """Models are built from shapes; nothing is saved where the script says, reported or fetched.

    Args:
        notes: receives what the reader must know.
        generate_tokens: new tokens of every ``generate()``; None refuses it.
    """
    import torch
    import transformers
    from deepspeed.runtime.engine import DeepSpeedEngine
    from transformers.integrations import integration_utils

    from zero_sizer.simulator.patches import generation, headers, overlay, pretrained

    patches = Patches()
    headers.install(patches)
    pretrained.install(patches)
    generation.install(patches, generate_tokens, notes)
    patches.set(transformers.PreTrainedModel, "save_pretrained", _nothing)
    for name in ("save_checkpoint", "save_16bit_model"):
        patches.set(DeepSpeedEngine, name, lambda self, *args, **kwargs: True)
    _refuse_other_engines(patches, torch)
    patches.set(subprocess.Popen, "__init__", _own_process(subprocess.Popen.__init__))
    patches.set(torch.utils.data.DataLoader, "__init__", _load_in_process(torch))
    patches.set(socket.socket, "connect", _connect(socket.socket.connect))
    # Before the Trainer is imported, which takes the function by name.
    patches.set(integration_utils, "get_reporting_integration_callbacks", lambda report_to: [])
    try:
        with overlay.saved_files(patches):
            yield
    finally:
        patches.undo()


def save_nothing(patches: Patches) -> None:
    """Libraries that are imported write no checkpoints: a later run would take them for its own."""
    for module, owner, names in _SAVERS:
        found = getattr(sys.modules.get(module), owner, None)
        for name in names if found is not None else ():
            if hasattr(found, name):
                patches.set(found, name, _nothing)


_SAVERS = (
    (
        "transformers.trainer",
        "Trainer",
        ("_save_checkpoint", "save_model", "save_state", "save_metrics"),
    ),
    ("transformers.tokenization_utils_base", "PreTrainedTokenizerBase", ("save_pretrained",)),
    ("accelerate.accelerator", "Accelerator", ("save_state", "save_model")),
    ("diffusers.models.modeling_utils", "ModelMixin", ("save_pretrained",)),
    ("peft.peft_model", "PeftModel", ("save_pretrained",)),
)


def _nothing(*args: object, **kwargs: object) -> None:
    """What a simulated script need not do."""


def _refuse_other_engines(patches: Patches, torch: Any) -> None:
    """Whoever wraps a model for another engine trains without DeepSpeed."""
    from torch.distributed.fsdp import FullyShardedDataParallel

    for owner in (torch.nn.parallel.DistributedDataParallel, FullyShardedDataParallel):
        patches.set(owner, "__init__", _refusal(owner.__name__))


def _refusal(name: str) -> Any:
    def init(*args: object, **kwargs: object) -> None:
        raise UnsupportedError(
            f"the script trains with torch's {name}, not with DeepSpeed",
            remedy=NO_ENGINE,
        )

    return init


def _own_process(original: Any) -> Any:
    """``subprocess.Popen`` of anything but a launcher, whose ranks would be real ones."""

    def init(process: Any, args: Any, *rest: Any, **options: Any) -> None:
        single = isinstance(args, str | bytes | os.PathLike)
        words = os.fsdecode(args).split() if single else [os.fsdecode(word) for word in args]
        started = words[2:3] if words[1:2] == ["-m"] else words[:1]
        if started and Path(started[0]).name in _LAUNCHERS:
            raise UnsupportedError(
                f"the script starts ranks of its own: {' '.join(words[:4])}",
                remedy="give the line that it starts instead",
            )
        original(process, args, *rest, **options)

    return init


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
