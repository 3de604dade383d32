"""Arguments of a training script that say what its job is, in the words of TrainingArguments.

Scripts of transformers, TRL and their many copies take these by the same names; a script that does
not is not misread, since only whole names count.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from zero_sizer.util.records import dataclass

_TRUE, _FALSE = ("true", "1", "yes"), ("false", "0", "no")


@dataclass(frozen=True, slots=True)
class Said:
    """A value that the script is told, and the argument that tells it."""

    value: Any
    argument: str


def config_of(command: Sequence[str], environment: Mapping[str, str]) -> Said | None:
    """The DeepSpeed config that a script is told, or that accelerate hands on; None if neither."""
    told = dict(_arguments(command))
    for name in ("deepspeed", "deepspeed_config"):
        if told.get(name):
            return Said(told[name], f"--{name}")
    path = environment.get("ACCELERATE_DEEPSPEED_CONFIG_FILE")
    return Said(path, "deepspeed_config_file") if path else None


def stated_by(command: Sequence[str]) -> dict[str, Said]:
    """Flag of ours -> what the script is told of it."""
    found: dict[str, Said] = {}
    for name, text in _arguments(command):
        if name not in _MEANINGS:
            continue
        flag, read = _MEANINGS[name]
        value = read(text)
        if value is not None:
            found[flag] = Said(value, f"--{name}")
    return found


def field_of(option: str) -> str | None:
    """Flag of ours that an option of a launcher or training script says; None for any other."""
    name = option.lstrip("-").replace("-", "_")
    return _MEANINGS[name][0] if name in _MEANINGS else _COUNTS.get(name)


def _arguments(command: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """(Name with underscores, value or None) of each argument that begins with two dashes."""
    words = list(command[1:])
    for at, word in enumerate(words):
        if not word.startswith("--") or len(word) < 3:
            continue
        name, equals, value = word[2:].partition("=")
        following = words[at + 1] if at + 1 < len(words) else None
        has_value = following is not None and not following.startswith("--")
        yield name.replace("-", "_"), value if equals else following if has_value else None


def _text(text: str | None) -> str | None:
    return text or None


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


def _flag(text: str | None) -> bool | None:
    """A switch: alone it is on."""
    lowered = "true" if text is None else text.lower()
    return True if lowered in _TRUE else False if lowered in _FALSE else None


def _word(word: str) -> Callable[[str | None], str | None]:
    return lambda text: word if _flag(text) else None


_MEANINGS: Mapping[str, tuple[str, Callable[[str | None], Any]]] = {
    "model_name_or_path": ("model", _text),
    "per_device_train_batch_size": ("micro_batch", _number),
    "gradient_accumulation_steps": ("grad_accum", _number),
    "gradient_checkpointing": ("checkpointing", _flag),
    "bf16": ("precision", _word("bf16")),
    "fp16": ("precision", _word("fp16")),
    "use_liger_kernel": ("kernels", _word("liger")),
    "dataloader_num_workers": ("num_workers", _number),
    "max_seq_length": ("seq_len", _number),
    "max_length": ("seq_len", _number),
    "block_size": ("seq_len", _number),
    "cutoff_len": ("seq_len", _number),
}
_COUNTS: Mapping[str, str] = {
    **dict.fromkeys(("gpus", "num_gpus", "nproc_per_node", "ngpus", "devices"), "gpus_per_node"),
    **dict.fromkeys(("nnodes", "num_nodes", "num_machines"), "nodes"),
}
"""Of launchers, Lightning and batch systems, as people type them to us."""
