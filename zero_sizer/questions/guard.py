"""May this line be launched? Reads it, sizes what it would start, starts nothing."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

from zero_sizer import launchers
from zero_sizer.answer import Answer
from zero_sizer.errors import InputError
from zero_sizer.job.fields import Flags
from zero_sizer.launchers import accelerate, deepspeed, packages, torchrun
from zero_sizer.launchers.arguments import Said, config_of, stated_by
from zero_sizer.launchers.launch import Launch
from zero_sizer.questions.check import check
from zero_sizer.util.records import dataclass

_COUNTED_THERE = (deepspeed.NAME, accelerate.NAME, *packages.NAMES)
"""Launchers that take as many ranks as they find GPUs."""

_ONE_RANK = ("", torchrun.NAME)
"""Python alone, and a launcher that starts one rank unless it is told more."""

_SLURM = {"nodes": "SLURM_NNODES", "gpus_per_node": "SLURM_NTASKS_PER_NODE"}


@dataclass(frozen=True, kw_only=True)
class Line:
    """A launcher line, read together with the flags in front of it.

    Attributes:
        words: as they would be started.
        launch: what they say.
        flags: flags, with what the line says where they say nothing.
        config: path of the DeepSpeed config; None where nobody names one.
        said: flag -> the argument of the line that it is from.
    """

    words: tuple[str, ...]
    launch: Launch
    flags: Flags
    config: str | None
    said: Mapping[str, Said]


def read(words: Sequence[str], flags: Flags, config: str | None) -> Line:
    """Read a line; nothing is started.

    Raises:
        InputError: a line that cannot be read, that contradicts the flags, or that does not say on
            how many GPUs it runs.
        UnsupportedError: a launcher that is not known.
    """
    launch = launchers.read(words)
    said = {**_ranks(launch), **stated_by(launch.command)}
    for name in ("nodes", "gpus_per_node"):
        _require_agreement(name, getattr(flags, name), said.get(name))
    told = {n: s.value for n, s in said.items() if getattr(flags, n) is None}
    is_known = _has_ranks(flags, told) or _is_job_file(config)
    if _counts_gpus(launch, words) and not is_known:
        raise InputError(
            f"{launch.launcher} takes every GPU that it finds: the line does not say how many",
            remedy="add --gpus-per-node",
            where="after --",
        )
    if launch.launcher in _ONE_RANK and not launch.slurm and not is_known:
        said["gpus_per_node"] = Said(1, "the launcher line")
        told["gpus_per_node"] = 1
    named = config_of(launch.command, launch.environment)
    return Line(
        words=tuple(words),
        launch=launch,
        flags=replace(flags, **told),
        config=config if config is not None or named is None else named.value,
        said={name: said[name] for name in told},
    )


def sized(line: Line) -> Answer:
    """The answer of ``check`` about what a line would start.

    Raises:
        ZeroSizerError: the job cannot be read.
    """
    if line.config is None:
        raise InputError(
            "no DeepSpeed config: the script is told none with --deepspeed",
            remedy="give it in front of --",
            where="after --",
        )
    try:
        return check(line.config, line.flags, tell=lambda text: None)
    except InputError as error:
        raise _as_said(error, line.said) from None


def _is_job_file(config: str | None) -> bool:
    """Whether CONFIG may say itself on how many GPUs."""
    return config is not None and config.lower().endswith((".yaml", ".yml"))


def _counts_gpus(launch: Launch, words: Sequence[str]) -> bool:
    """Whether the launcher takes as many ranks as it finds GPUs."""
    asks_all = launch.launcher == torchrun.NAME and any("nproc" in word for word in words)
    return launch.launcher in _COUNTED_THERE or asks_all


def _as_said(error: InputError, said: Mapping[str, Said]) -> InputError:
    """The error, naming the argument of the line that a value is from."""
    name = error.where.removeprefix("--").replace("-", "_")
    if name not in said:
        return error
    where = f"{said[name].argument} (after --)"
    remedy = f"{error.remedy}; {error.where} in front of -- says it to zero-sizer alone"
    return InputError(error.message, remedy=remedy.removeprefix("; "), where=where)


def _has_ranks(flags: Flags, told: Mapping[str, object]) -> bool:
    return flags.gpus_per_node is not None or flags.hostfile is not None or "gpus_per_node" in told


def _ranks(launch: Launch) -> dict[str, Said]:
    """Nodes and GPUs of the line, and under srun those of the job that it stands in."""
    found = {}
    for name, variable in _SLURM.items():
        value, around = getattr(launch, name), os.environ.get(variable, "")
        if value is not None:
            found[name] = Said(value, "the launcher line")
        elif launch.slurm and around.isdecimal() and int(around) > 0:
            found[name] = Said(int(around), variable)
    return found


def _require_agreement(name: str, flag: int | None, said: Said | None) -> None:
    if flag is not None and said is not None and flag != said.value:
        raise InputError(
            f"{flag}, and {said.argument} says {said.value}",
            remedy="leave one out",
            where="--" + name.replace("_", "-"),
        )
