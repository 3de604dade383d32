"""Findings: what is wrong or worth knowing about a job, collected rather than thrown."""

from enum import Enum

from zero_sizer.util.records import dataclass


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
        file: the file of that line, where it is not the DeepSpeed config.
        message: what is the matter, with the exception DeepSpeed would raise where it would.
        remedy: what to change.
        direction: of what is not modelled, None where the prediction stands as it is.
        device: ``gpu``, ``host`` or ``nvme`` that a direction is about; empty: all of them.
        num_bytes: the most by which it can move the prediction, None where nobody knows.
        less_bytes: the most by which it can lower it, where that differs.
    """

    code: str
    severity: Severity
    key: str = ""
    line: int = 0
    file: str = ""
    message: str
    remedy: str = ""
    direction: Direction | None = None
    device: str = "gpu"
    num_bytes: int | None = None
    less_bytes: int | None = None


ACTIVATIONS_UNKNOWN = "activations-unknown"
CLOSED_FORM = "activations-in-closed-form"
"""Code of the finding that some activations are counted as nothing."""
INPUTS_NOT_MODELLED = "inputs-not-modelled"
"""Code of the finding that what a sample brings besides tokens is counted as nothing."""
IMAGE_TOO_LONG = "image-too-long"
"""Code of the finding that a model's processor raises, of an image that is a strip."""
RECORDING_TOO_SHORT = "recording-too-short"
"""Code of the finding that a model's forward raises, of a recording of too few samples."""


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Why a verdict is what it is: what decides it, on which device.

    Attributes:
        device: ``gpu``, ``host`` or ``nvme``; empty where it is about all.
        code: stable kebab-case name; that of the finding behind it, if there is one.
        direction: how it moves what is predicted.
        message: what decides.
        remedy: how to find out, or what to state.
    """

    device: str
    code: str
    direction: Direction
    message: str
    remedy: str = ""
