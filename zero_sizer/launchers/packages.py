"""Commands of training packages that start ranks themselves: the module that each rank runs."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from zero_sizer.errors import InputError, UnsupportedError
from zero_sizer.launchers import accelerate
from zero_sizer.launchers.launch import Launch

NAMES = ("trl", "llamafactory-cli", "lmf", "swift", "axolotl")
_MODULES = {  # package -> subcommands that train, and the module that each rank runs
    "llamafactory-cli": (("train",), "llamafactory.launcher"),
    "lmf": (("train",), "llamafactory.launcher"),
    "swift": (("sft", "pt", "rlhf"), "swift.cli.{}"),
    "axolotl": (("train",), "axolotl.cli.train"),
}
# trl hands these on to accelerate (trl/cli.py): a name among its own YAML files, or a path.
_NO_TRAINING = ("vllm-serve", "chat", "env", "skills")
_OF_ACCELERATE = ("num_processes", "num_machines", "mixed_precision", "config_file")


def read(name: str, words: Sequence[str]) -> Launch:
    """Reads what follows ``trl``, ``llamafactory-cli``, ``swift`` or ``axolotl``.

    Raises:
        InputError: no subcommand.
        UnsupportedError: a subcommand that does not train.
    """
    if not words:
        raise InputError(f"{name}: no subcommand", where="after --")
    if name == "trl":
        return _trl(words[0], list(words[1:]))
    known, module = _MODULES[name]
    if words[0] not in known:
        remedy = " or ".join(f"{name} {known_one}" for known_one in known)
        raise UnsupportedError(f"{name} {words[0]} does not train", remedy=f"{remedy} FILE")
    return Launch(command=(module.format(words[0]), *words[1:]), module=True, launcher=name)


def _trl(subcommand: str, words: list[str]) -> Launch:
    options: dict[str, str] = {}
    rest: list[str] = []
    while words:
        word, equals, value = words.pop(0).partition("=")
        key = word.lstrip("-")
        key = "config_file" if key == "accelerate_config" else key
        if word.startswith("--") and key in _OF_ACCELERATE and (equals or words):
            options[key] = value if equals else words.pop(0)
        else:
            rest.append(f"{word}={value}" if equals else word)
    if "config_file" in options:
        options["config_file"] = _of_trl(options["config_file"])
    if subcommand in _NO_TRAINING:
        raise UnsupportedError(f"trl {subcommand} does not train", remedy="trl sft, dpo, grpo, ...")
    module = f"trl.scripts.{subcommand}"
    if "config_file" in options:
        return accelerate.launch({**options, "module": "true"}, [module, *rest])
    return Launch(command=(module, *rest), module=True, launcher="trl")


def _of_trl(name: str) -> str:
    if Path(name).is_file():
        return name
    spec = importlib.util.find_spec("trl")
    folders = spec.submodule_search_locations if spec is not None else None
    for folder in folders or ():
        path = Path(folder) / "accelerate_configs" / f"{name}.yaml"
        if path.is_file():
            return str(path)
    raise InputError(
        f"--accelerate_config {name}: no such file, and none of trl's", where="after --"
    )
