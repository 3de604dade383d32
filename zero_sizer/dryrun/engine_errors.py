"""Errors of an engine: whether DeepSpeed means the job, and which config keys it is about."""

import linecache
import re
import traceback
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from zero_sizer.errors import EngineError, WitnessError

_SHORTEST_VALUE = 4  # letters; shorter values are words of any sentence
_MOST = 3
_NVIDIA = (
    "this machine and a simulated GPU are none; `--how solo` or `--how launched` on an NVIDIA GPU "
    "runs it"
)
_OF_NVIDIA = ("only supports NVIDIA CUDA GPUs", "only supported for CUDA accelerator")
# Words of messages that say nothing to a reader, and what to do.
_REMEDIES: Mapping[str, str] = {
    "self.dim() cannot be 0 to view": (
        "DeepSpeed broadcasts parameters as bytes, and one has no dimensions (logit_scale of CLIP "
        "and SigLIP): before the engine is made, model.NAME = "
        "torch.nn.Parameter(model.NAME.detach().reshape(1)); under zero.Init, in the class"
    ),
    "Not enough buffers": (
        "weights on NVMe find no buffer: `zero-sizer check` says where, and how many "
        "zero_optimization.offload_param.buffer_count takes"
    ),
    "already assigned swap buffer id": (
        "a weight on NVMe is read ahead twice: `zero-sizer check` says where, and what "
        "zero_optimization.offload_param.buffer_count or stage3_prefetch_bucket_size runs"
    ),
    **dict.fromkeys(_OF_NVIDIA, _NVIDIA),
}


_OF_THE_MACHINE = ("deepspeed.ops.op_builder", "deepspeed.accelerator")


class Raised(NamedTuple):
    """Where DeepSpeed raised an error.

    Attributes:
        at: ``deepspeed/...py:line``.
        on_purpose: by a statement of its own, which checks something; else an operation failed.
    """

    at: str
    on_purpose: bool


def raised_by_deepspeed(error: BaseException) -> Raised | None:
    """Where DeepSpeed raised it; None for what torch, the model or the machine raised."""
    frames = [
        (str(frame.f_globals.get("__name__", "")), frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    checked = bool(frames) and frames[-1][0].partition(".")[0] == "pydantic"
    while checked and frames and not frames[-1][0].startswith("deepspeed"):
        frames.pop()
    module, filename, line = frames[-1] if frames else ("", "", 0)
    if module.partition(".")[0] != "deepspeed" or module.startswith(_OF_THE_MACHINE):
        return None
    if any(words in str(error) for words in _OF_NVIDIA):
        return None  # SuperOffload, GPUDirect Storage: of the machine as well
    of_it = re.split(r"[\\/](?=deepspeed[\\/])", filename)[-1].replace("\\", "/")
    says = linecache.getline(filename, line).lstrip().startswith("raise")
    on_purpose = checked or says or isinstance(error, AssertionError)
    if not on_purpose and isinstance(error, RuntimeError | OSError | MemoryError):
        return None  # of torch's, which has no frames of its own; or of files
    return Raised(f"{of_it}:{line}", on_purpose)


def engine_error(
    message: str, config: Mapping[str, Any], *, where: str = "", raised: Raised | None = None
) -> WitnessError:
    """The engine's message, with the keys of ``config`` that it names.

    Args:
        message: as it stands in the reply.
        config: DeepSpeed's.
        where: ``file:line`` of a script.
        raised: by DeepSpeed; what it did not mean counts where it is about a key of the config.
    """
    keys = keys_named(message, config)
    named = "in the config: " + ", ".join(keys[:_MOST]) if keys else ""
    remedy = remedy_of(message) or named
    if raised is not None and (raised.on_purpose or keys):
        return EngineError(
            message, remedy=remedy, where=where, raised_at=raised.at, keys=tuple(keys)
        )
    return WitnessError(message, remedy=remedy, where=where)


def remedy_of(message: str) -> str:
    """Remedy of an error that is known by its words; empty for others."""
    return next((remedy for words, remedy in _REMEDIES.items() if words in message), "")


def keys_named(message: str, config: Mapping[str, Any]) -> list[str]:
    """Dotted keys whose own name (of several words) or text value stands in the message."""
    words = {word.lower() for word in re.findall(r"\w+", message)}
    return [
        dotted
        for dotted, value in _leaves(config, "")
        if _name(dotted.rpartition(".")[2]) & words or _text(value) & words
    ]


def _name(name: str) -> set[str]:
    return {name.lower()} if "_" in name else set()


def _text(value: object) -> set[str]:
    is_long = isinstance(value, str) and len(value) >= _SHORTEST_VALUE
    return {str(value).lower()} if is_long else set()


def _leaves(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
