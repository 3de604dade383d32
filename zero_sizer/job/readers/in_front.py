"""Programs in front of a launcher in a shell script, and launchers that start a tool's command."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from zero_sizer.launchers import mpi

_CONTAINERS = ("apptainer", "singularity")
"""Programs that run a command inside an image: ``apptainer exec --env A=B IMAGE torchrun ...``."""
_LAUNCHERS = frozenset(
    {
        *("deepspeed", "torchrun", "accelerate", "srun", "trl", "llamafactory-cli", "swift"),
        *("torch.distributed.run", "torch.distributed.launch", *mpi.NAMES),
    }
)


def is_launcher(words: Sequence[str]) -> bool:
    """True if one of the words is a launcher that is known here."""
    return any(_name(word) in _LAUNCHERS for word in words)


def handed_on(words: Sequence[str]) -> Sequence[str]:
    """The words that a program in front starts elsewhere, with the variables that it sets.

    ``submit.py --gpus 8 -- accelerate launch ...``, ``apptainer exec IMAGE torchrun ...``.
    """
    if "--" in words and is_launcher(words[words.index("--") + 1 :][:1]):
        return _of_tool(words[words.index("--") + 1 :])
    inside = next((at for at, word in enumerate(words) if _name(word) in _CONTAINERS), None)
    if inside is None or "exec" not in words[inside + 1 : inside + 2]:
        return _of_tool(words)
    starts = (at for at in range(inside + 2, len(words)) if is_launcher(words[at : at + 1]))
    first = next(starts, None)
    given = [value for name, value in pairwise(words[inside:]) if name == "--env"]
    known = [word for word in given if "=" in word]
    return words if first is None else [*known, *_of_tool(words[first:])]


def _of_tool(words: Sequence[str]) -> Sequence[str]:
    """``torchrun ... bin/swift sft ...`` with the module that the command is."""
    for at, (word, action) in enumerate(pairwise(words)):
        is_started = at > 0 and "torchrun" in map(_name, words[:at])
        if is_started and _name(word) == "swift" and action.isidentifier():
            return [*words[:at], "-m", f"swift.cli.{action}", *words[at + 2 :]]
    return words


def _name(word: str) -> str:
    return Path(word[:200]).name
