"""Which launcher stands in a line, and what it says."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from zero_sizer.errors import InputError, UnsupportedError
from zero_sizer.launchers import accelerate, deepspeed, mpi, packages, slurm, torchrun
from zero_sizer.launchers.launch import Launch
from zero_sizer.launchers.words import number

KNOWN = (
    "python, deepspeed, torchrun, accelerate launch, srun, mpirun, trl, llamafactory-cli, swift, "
    "axolotl"
)
_ASSIGNMENT = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*=")
_PYTHON = re.compile(r"^python(\d+(\.\d+)?)?$")
_PYTHON_VALUES = ("-X", "-W")
_COUNTING = (deepspeed.NAME, accelerate.NAME, *packages.NAMES)  # as many ranks as GPUs shown
_IN_FRONT = ("env", "nohup", "time", "exec", "command", "eval")
_RUN = ("uv", "poetry", "pipenv", "pdm")  # ``uv run [options] LINE``
_RUN_VALUES = ("--with", "--extra", "--group", "--python", "-p", "--project", "--directory")
_MODULES = {
    "torch.distributed.run": torchrun.read,
    "torch.distributed.launch": lambda words: torchrun.read(words, legacy=True),
    "deepspeed": deepspeed.read,
    "deepspeed.launcher.runner": deepspeed.read,
    "accelerate.commands.launch": accelerate.read,
}


def read(words: Sequence[str], *, needs_script: bool = True) -> Launch:
    """Reads what a line would start; nothing is started.

    Args:
        words: the line, word by word, as the shell would hand it on.
        needs_script: the script must be there.

    Raises:
        InputError: no script in it, or an option that its launcher does not have.
        UnsupportedError: a launcher that is not known, or one that trains without DeepSpeed.
    """
    launch = _read(list(words))
    if not launch.command:
        raise InputError(f"no script after {launch.launcher or 'python'}", where="after --")
    if needs_script and not launch.module:
        _require_script(launch.command[0])
    return launch


def _read(words: list[str]) -> Launch:
    environment: dict[str, str] = {}
    while words and (_ASSIGNMENT.match(words[0]) or words[0] in _IN_FRONT):
        word = words.pop(0)
        if _ASSIGNMENT.match(word):
            name, _, value = word.partition("=")
            environment[name] = value
    outer = Launch(command=(), environment=environment)
    if not words:
        return outer
    return _counted(_launcher(words[0], words[1:]).within(outer))


def _counted(launch: Launch) -> Launch:
    """Ranks that a launcher counts by variables in front of it."""
    said = launch.environment
    nodes, gpus = launch.nodes, launch.gpus_per_node
    if launch.launcher in packages.NAMES:
        nodes = nodes or number(dict(said), "NNODES", launch.launcher)
        gpus = gpus or number(dict(said), "NPROC_PER_NODE", launch.launcher)
    if launch.launcher in _COUNTING and gpus is None and said.get("CUDA_VISIBLE_DEVICES"):
        gpus = len(said["CUDA_VISIBLE_DEVICES"].split(","))
    return replace(launch, nodes=nodes, gpus_per_node=gpus)


def _launcher(word: str, rest: list[str]) -> Launch:
    name = Path(word).name
    if _PYTHON.match(name):
        return _python(rest)
    if name == slurm.NAME or name in mpi.NAMES:
        outer, inner = slurm.read(rest) if name == slurm.NAME else mpi.read(name, rest)
        return _read(inner).within(outer)
    if name in ("deepspeed", "ds"):
        return deepspeed.read(rest)
    if name == "torchrun":
        return torchrun.read(rest)
    if name == "accelerate-launch" or (name == "accelerate" and rest[:1] == ["launch"]):
        return accelerate.read(rest[name == "accelerate" :])
    if name in packages.NAMES:
        return packages.read(name, rest)
    if name in _RUN and rest[:1] == ["run"]:
        return _read(_without_options(rest[1:]))
    return Launch(command=(word, *rest))


def _without_options(words: list[str]) -> list[str]:
    while words and words[0].startswith("-"):
        words = words[2 if words[0] in _RUN_VALUES else 1 :]
    return words


def _python(words: list[str]) -> Launch:
    while words and words[0].startswith("-"):
        word = words.pop(0)
        if word == "-m":
            return _module(words)
        if word.startswith("-m"):
            return _module([word[2:], *words])
        if word == "-c":
            raise InputError("python -c runs no script", remedy="write it to a file")
        if word in _PYTHON_VALUES and words:
            words.pop(0)
    return Launch(command=tuple(words))


def _module(words: list[str]) -> Launch:
    if not words:
        return Launch(command=())
    if words[0] in _MODULES:
        return _MODULES[words[0]](words[1:])
    if words[:2] == ["accelerate.commands.accelerate_cli", "launch"]:
        return accelerate.read(words[2:])
    return Launch(command=tuple(words), module=True)


def _require_script(word: str) -> None:
    """Stops at what is no script of Python's.

    Raises:
        InputError: it is not there.
        UnsupportedError: it is something else.
    """
    path = Path(word)
    if not path.is_file():
        if "/" in word or path.suffix == ".py":
            raise InputError(f"no script {word!r}")
        raise UnsupportedError(
            f"{word!r} is no launcher that is known ({KNOWN}) and no script",
            remedy="give the Python script that it starts: -- train.py ARGS",
        )
    if path.suffix != ".py" and not _is_python(path):
        raise UnsupportedError(
            f"{word!r} is no Python script and no launcher that is known ({KNOWN})",
            remedy="give the line in it that starts the training",
        )


def _is_python(path: Path) -> bool:
    """Whether a file without ``.py`` says that it is Python's."""
    with path.open("rb") as file:
        first = file.readline(200)
    return first.startswith(b"#!") and b"python" in first
