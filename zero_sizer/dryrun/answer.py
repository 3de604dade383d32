"""The finished answer of a dry run: what its report shows."""

from collections.abc import Mapping
from dataclasses import field

from zero_sizer.dryrun.recording import Recording
from zero_sizer.dryrun.simulated.workspaces import Workspace, workspaces_of
from zero_sizer.dryrun.verdict import verdict_of
from zero_sizer.findings import Finding, Reason
from zero_sizer.hardware import catalog, outside
from zero_sizer.ledger.verdict import Verdict
from zero_sizer.util.interval import Interval
from zero_sizer.util.records import dataclass


@dataclass(frozen=True, kw_only=True)
class RunAnswer:
    """A recording with what follows from it.

    Attributes:
        recording: what was measured.
        verdict: whether the run fits; None where no device had a known size.
        reasons: what decides the verdict.
        workspaces: what kernels would add on a real GPU; empty where the run had one.
        outside: what a simulated GPU has no figures for -> the range that it took elsewhere.
    """

    recording: Recording
    verdict: Verdict | None
    reasons: tuple[Reason, ...]
    workspaces: tuple[Workspace, ...] = ()
    outside: Mapping[str, Interval] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StoppedRun:
    """A dry run that DeepSpeed itself stopped, or of a job that it would stop.

    Attributes:
        how: the kind of dry run.
        about: the model or the script.
        source: the DeepSpeed config, for findings that name no file.
        findings: what DeepSpeed said, and what else is an error about the job.
        is_started: the engine was.
    """

    how: str
    about: str
    source: str
    findings: tuple[Finding, ...]
    is_started: bool = True


def answer_of(recording: Recording) -> RunAnswer:
    """The answer of a dry run."""
    verdict, reasons = verdict_of(recording)
    if recording.how != "simulated":
        return RunAnswer(recording=recording, verdict=verdict, reasons=tuple(reasons))
    return RunAnswer(
        recording=recording,
        verdict=verdict,
        reasons=tuple(reasons),
        workspaces=workspaces_of(recording.job),
        outside=_outside(recording),
    )


def _outside(recording: Recording) -> dict[str, Interval]:
    name = str(recording.job.get("gpu") or "")
    parts = {"the CUDA context": outside.context(catalog.find(name) if name else None)}
    if recording.world_size > 1:
        parts["NCCL"] = outside.NCCL.interval
    return parts
