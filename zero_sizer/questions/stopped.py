"""Why does DeepSpeed stop a dry run, or would stop the job, and what is to be changed?"""

from zero_sizer.dryrun.answer import StoppedRun
from zero_sizer.dryrun.truncate import cut_job
from zero_sizer.errors import EngineError
from zero_sizer.findings import Finding, Severity
from zero_sizer.job.read import Job
from zero_sizer.sizing import size

CODE = "engine-stop"
_ELSE = "the message is DeepSpeed's, at {}: it names what it checks there"
_TOLD = "see the error below, which names the key"


def before(how: str, job: Job, layers: int | None) -> StoppedRun | None:
    """The answer about a job of which `check` finds errors; None where it finds none.

    No engine is started. A run is laid out so that it shows memory: its batch fits its ranks, its
    swap files have a folder, and positions of tokens have no values, so some of these errors would
    not come up in it; and others would after minutes.

    Args:
        how: the kind of dry run.
        job: as read.
        layers: that the model is cut to.
    """
    cut = cut_job(job, layers)
    errors = _errors(cut)
    if not errors:
        return None
    return StoppedRun(
        how=how,
        about=cut.model.name,
        source=job.document.source,
        findings=errors,
        is_started=False,
    )


def of_job(error: EngineError, how: str, job: Job, layers: int | None) -> StoppedRun:
    """The answer about a job, with the errors that are found without a run.

    Args:
        error: DeepSpeed's.
        how: the kind of dry run.
        job: as read.
        layers: that the model was cut to.
    """
    cut, document = cut_job(job, layers), job.document
    errors = _errors(cut)
    key = error.keys[0] if error.keys else ""
    remedy = error.remedy or (_TOLD if errors else _ELSE.format(error.raised_at))
    found = _finding(error, key=key, line=document.line(key), remedy=_TOLD if errors else remedy)
    findings = (found, *errors)
    return StoppedRun(how=how, about=cut.model.name, source=document.source, findings=findings)


def of_script(error: EngineError, script: str) -> StoppedRun:
    """The answer about a script.

    Args:
        error: DeepSpeed's.
        script: its path or module.
    """
    file, _, line = error.where.rpartition(":")
    is_line = bool(file) and line.isdecimal()
    remedy = error.remedy or _ELSE.format(error.raised_at)
    found = _finding(
        error,
        key=error.keys[0] if error.keys else "",
        line=int(line) if is_line else 0,
        file=file if is_line else "",
        remedy=remedy,
    )
    return StoppedRun(how="simulated", about=script, source=script, findings=(found,))


def _errors(job: Job) -> tuple[Finding, ...]:
    return tuple(f for f in size(job).findings if f.severity is Severity.ERROR)


def _finding(error: EngineError, *, key: str, line: int, remedy: str, file: str = "") -> Finding:
    return Finding(
        code=CODE,
        severity=Severity.ERROR,
        key=key,
        line=line,
        file=file,
        message=f"DeepSpeed stops the job: {error.message} ({error.raised_at})",
        remedy=remedy,
    )
