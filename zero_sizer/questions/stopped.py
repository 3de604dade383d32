"""Why does DeepSpeed stop a dry run, or would stop the job, and what is to be changed?"""

from dataclasses import replace

from zero_sizer.config.document import from_mapping, load
from zero_sizer.dryrun.answer import StoppedRun
from zero_sizer.dryrun.truncate import cut_job
from zero_sizer.errors import EngineError, InputError, WitnessError
from zero_sizer.findings import Finding, Severity
from zero_sizer.hardware.cluster import Cluster
from zero_sizer.job.read import Job
from zero_sizer.questions.lint import errors_on
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
    found = _finding(
        _engines(error), key=key, line=document.line(key), remedy=_TOLD if errors else remedy
    )
    findings = (found, *errors)
    return StoppedRun(how=how, about=cut.model.name, source=document.source, findings=findings)


def of_script(error: WitnessError, script: str) -> StoppedRun | None:
    """The answer about a script; None where nothing says that its job is what is wrong.

    Args:
        error: that ended it, DeepSpeed's or another's.
        script: its path or module.
    """
    errors = _of_config(error)
    remedy = _TOLD if errors else error.remedy
    if isinstance(error, EngineError):
        remedy = remedy or _ELSE.format(error.raised_at)
        key, message = error.keys[0] if error.keys else "", _engines(error)
    elif errors:
        key, message = "", f"the script ends: {error.message}"
    else:
        return None
    file, _, line = error.where.rpartition(":")
    is_line = bool(file) and line.isdecimal()
    found = _finding(message, key=key, line=int(line) if is_line else 0, remedy=remedy)
    found = replace(found, file=file if is_line else "")
    return StoppedRun(how="simulated", about=script, source=script, findings=(found, *errors))


def _of_config(error: WitnessError) -> list[Finding]:
    """The errors that are found in a script's config, whatever its model."""
    try:
        if isinstance(error.config, str):
            document = load(error.config)
        elif error.config is not None:
            document = from_mapping(error.config, "the script")
        else:
            return []
    except InputError:
        return []
    nodes, gpus = error.ranks
    found = errors_on(document, Cluster(nodes=nodes, gpus_per_node=gpus, origins={}))
    return [replace(f, file=document.source) if f.line else f for f in found]


def _errors(job: Job) -> tuple[Finding, ...]:
    return tuple(f for f in size(job).findings if f.severity is Severity.ERROR)


def _engines(error: EngineError) -> str:
    return f"DeepSpeed stops the job: {error.message} ({error.raised_at})"


def _finding(message: str, *, key: str, line: int, remedy: str) -> Finding:
    return Finding(
        code=CODE, severity=Severity.ERROR, key=key, line=line, message=message, remedy=remedy
    )
