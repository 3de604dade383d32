"""Findings: what is wrong or worth knowing about a job, collected rather than thrown."""

from dataclasses import dataclass
from enum import Enum


class Severity(Enum):
    """How bad a finding is."""

    ERROR = "error"  # DeepSpeed, or the framework that fills "auto", would raise
    WARNING = "warning"  # runs, but not as the user thinks
    NOTE = "note"  # worth knowing


class Direction(Enum):
    """How something that is not modelled can change what is predicted."""

    COST = "cost"  # the job can only need more than is shown
    SAVE = "save"  # it can only need less: no ground for "does not fit"
    EITHER = "either"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One observation about the job.

    Attributes:
        code: stable kebab-case name, e.g. ``unknown-key``; also a folder in deepspeed_configs.
        severity: ``ERROR`` makes the exit code 1.
        key: dotted config key path, or a flag such as ``--nodes``; empty if none.
        line: line in the config file, 0 if it stands in none.
        message: what is the matter, with the exception DeepSpeed would raise where it would.
        remedy: what to change.
        direction: of what is not modelled, None where the prediction stands as it is.
        device: ``gpu``, ``host`` or ``nvme`` that a direction is about.
        num_bytes: the most by which it can move the prediction, None where nobody knows.
    """

    code: str
    severity: Severity
    key: str = ""
    line: int = 0
    message: str
    remedy: str = ""
    direction: Direction | None = None
    device: str = "gpu"
    num_bytes: int | None = None
