"""Findings: what is wrong or worth knowing about a job, collected rather than thrown."""

from dataclasses import dataclass
from enum import Enum


class Severity(Enum):
    """How bad a finding is."""

    ERROR = "error"  # DeepSpeed, or the framework that fills "auto", would raise
    WARNING = "warning"  # runs, but not as the user thinks
    NOTE = "note"  # worth knowing


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
    """

    code: str
    severity: Severity
    key: str = ""
    line: int = 0
    message: str
    remedy: str = ""
