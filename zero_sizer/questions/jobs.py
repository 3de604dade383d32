"""From what was stated in flags or keywords to the job and the goal that it means."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from zero_sizer.config.workload import INFERENCE
from zero_sizer.errors import InputError
from zero_sizer.job.fields import OPTIONS, RUN, Flags
from zero_sizer.job.read import Config, Job, read

if TYPE_CHECKING:
    from zero_sizer.job.goal import Goal

HOW = "checkpointing_how"
"""Second name of ``checkpointing``, for words such as ``every-2,offload``."""


_OF_MODEL = tuple(o for o in OPTIONS if not o.section and o not in RUN)


def flags_of(values: Mapping[str, Any]) -> Flags:
    """The statements among ``values``, whose names are those of the table and ``HOW``.

    Raises:
        InputError: two of them contradict one another.
    """
    found: dict[str, Any] = {option.name: values.get(option.name) for option in OPTIONS}
    for option in _OF_MODEL:
        value = found[option.name]
        if value is not None and not (option.name == "model" and isinstance(value, Mapping)):
            option.parse(value, option.flag)
    how = values.get(HOW)
    if how is not None and found["checkpointing"] is False:
        raise InputError(
            "says how, and --no-checkpointing that there is none",
            remedy="leave one of the two out",
            where="--checkpointing-how",
        )
    return Flags(**{**found, "checkpointing": found["checkpointing"] if how is None else how})


def job_of(
    config: Config | None,
    flags: Flags,
    *,
    finds_config: bool = False,
    takes_inference: bool = False,
) -> Job:
    """The job; without a config, AdamW in the stated precision, else in what suits the GPU.

    Args:
        config: CONFIG.
        flags: statements outside it.
        finds_config: another tool's file need not name a DeepSpeed config.
        takes_inference: the question is one about inference too.

    Raises:
        InputError: it cannot be read, or is one of inference where that is not ``takes_inference``.
    """
    job = _read(config, flags, finds_config=finds_config)
    if job.workload.task == INFERENCE and not takes_inference:
        raise InputError(
            "this question is about training, and not about inference",
            remedy="check, gpus, dryrun and choose --largest batch-size or seq-len take it",
            where=job.workload.origins.get("task", "--task"),
        )
    return job


def _read(config: Config | None, flags: Flags, *, finds_config: bool) -> Job:
    if config is not None and not finds_config:
        return read(config, flags)
    from zero_sizer.job.read import without_config

    if config is None and flags.task == INFERENCE:
        return without_config({}, flags)
    from zero_sizer.advise.config import default_config

    usual = flags.precision or _precision(flags.gpu)
    if config is None:
        assumed = default_config(usual)
        if flags.optim is not None:  # which is what the Trainer brings where a config has none
            del assumed["optimizer"]
        return without_config(assumed, flags)
    return read(
        config,
        flags,
        instead=lambda said: default_config(flags.precision or said or usual),
    )


def _precision(gpu: str | None) -> str:
    from zero_sizer.advise.config import usual_precision

    try:
        return usual_precision(gpu)
    except InputError:
        return "bf16"  # the job's reader says what is wrong with the name


def goal_of(flags: Flags, job: Job) -> "Goal | None":
    """The training run that job and flags describe; None where nobody says how much."""
    workload = job.workload
    is_asked = any(getattr(flags, option.name) is not None for option in RUN)
    if workload.tokens is None and workload.samples is None and not is_asked:
        return None  # without importing what it takes
    from zero_sizer.job import goal

    return goal.goal_of(workload, job.cluster, flags)
