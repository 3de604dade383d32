"""The questions in Python: keywords are the flags, answers are objects.

Every question takes a ``config`` (the path of a DeepSpeed JSON or a job YAML, or a mapping of what
would stand in one) and, as keywords, the flags of the command line. A keyword with several values,
in a list, a range, an array or an iterator, makes a sweep: one job for each combination, whose rows
go into ``pandas.DataFrame``. A file, a name or a value that is wrong raises ``JobError``.
"""

from collections.abc import Callable, Mapping
from os import PathLike, fspath
from typing import Any, Unpack, overload

from zero_sizer.api.diagnosed import DiagnosisResult
from zero_sizer.api.errors import JobError, job_error
from zero_sizer.api.keywords import OWN, axes, checked, combinations, documented
from zero_sizer.api.linted import LintResult
from zero_sizer.api.results import CheckResult, ChoiceResult, LargestResult, Result, SizeResult
from zero_sizer.api.sweep import Sweep
from zero_sizer.api.typed import CheckKeywords, PlanKeywords, SizeKeywords
from zero_sizer.errors import ZeroSizerError
from zero_sizer.job.fields import Flags
from zero_sizer.questions import choose as chosen
from zero_sizer.questions.check import check as asked_check
from zero_sizer.questions.diagnose import diagnose as asked_diagnose
from zero_sizer.questions.jobs import flags_of, job_of
from zero_sizer.questions.lint import lint as lint_one
from zero_sizer.util import caches

__all__ = [
    "CheckResult",
    "ChoiceResult",
    "Config",
    "DiagnosisResult",
    "JobError",
    "LargestResult",
    "LintResult",
    "Result",
    "SizeResult",
    "Sweep",
    "check",
    "choose",
    "diagnose",
    "lint",
    "size",
]

Config = str | PathLike[str] | Mapping[str, Any]


@overload
def check(config: Config, **keywords: Unpack[CheckKeywords]) -> CheckResult: ...
@overload
def check(config: Any, **keywords: Any) -> CheckResult | Sweep: ...
@documented("check")
def check(config: Any = None, **keywords: Any) -> Any:
    """Validate a config and predict what the job needs, as ``zero-sizer check`` does.

    A keyword with several values makes a sweep, for ``pandas.DataFrame``. Raises ``JobError``.
    """
    return _asked("check", config, keywords, _check)


@overload
def choose(config: Config | None = None, **keywords: Unpack[PlanKeywords]) -> ChoiceResult: ...
@overload
def choose(config: Any = None, **keywords: Any) -> ChoiceResult | LargestResult | Sweep: ...
@documented("choose")
def choose(config: Any = None, **keywords: Any) -> Any:
    """Find the fastest plan that fits a cluster, as ``zero-sizer choose`` does.

    Without a config it is AdamW in the usual precision. A keyword with several values makes a
    sweep, for ``pandas.DataFrame``. Raises ``JobError``.
    """
    return _asked("choose", config, keywords, _choose)


@overload
def size(config: Config | None = None, **keywords: Unpack[SizeKeywords]) -> SizeResult: ...
@overload
def size(config: Any = None, **keywords: Any) -> SizeResult | Sweep: ...
@documented("size")
def size(config: Any = None, **keywords: Any) -> Any:
    """Find the fewest GPUs or nodes that fit, as ``zero-sizer size`` does.

    Without a config it is AdamW in the usual precision. A keyword with several values makes a
    sweep, for ``pandas.DataFrame``. Raises ``JobError``.
    """
    return _asked("size", config, keywords, _size)


def lint(*configs: Config) -> LintResult:
    """Validate configs without a model or a cluster, as ``zero-sizer lint`` does.

    Args:
        configs: paths of DeepSpeed JSONs or job YAMLs, or mappings of what would stand in one.

    Returns:
        The findings, those about files that cannot be read included.

    Raises:
        JobError: there is no config, or something else than a path or a mapping.
    """
    if not configs:
        raise JobError("no config", remedy="give a path or a mapping", where="config")
    return LintResult([lint_one(_config("lint", config)) for config in configs])


def diagnose(
    log: str | PathLike[str], config: Config | None = None, **keywords: Unpack[CheckKeywords]
) -> DiagnosisResult:
    """Read the log of a job that ran out of memory, as ``zero-sizer diagnose`` does.

    Args:
        log: path of what the job printed.
        config: of the job; None to read the log alone.
        keywords: those of ``check`` that say what the job is.

    Raises:
        JobError: the log or the job cannot be read.
    """
    stated = {name: value for name, value in keywords.items() if name != "timeline"}
    path = _path(log)
    about = None if config is None else _config("diagnose", config)
    try:
        found = asked_diagnose(path, about, flags_of(checked("check", stated)))
    except (ZeroSizerError, OSError) as error:
        raise job_error(error) from None
    return DiagnosisResult(found)


def _asked(
    question: str, config: Any, keywords: Mapping[str, Any], answer: Callable[..., Result]
) -> Result | Sweep:
    """The answer, or a sweep of answers where a keyword has several values."""
    try:
        several, one = axes({"config": config, **keywords})
        found = []
        for values in combinations(several):
            stated = {**one, **values}
            about = stated.pop("config")
            if about is not None or stated.get("task") != "inference":  # which needs none
                about = _config(question, about)
            stated = checked(question, stated)
            own = {name: stated.pop(name) for name in OWN & stated.keys()}
            found.append((values, answer(about, flags_of(stated), **own)))
            caches.release()
    except (ZeroSizerError, OSError) as error:
        raise job_error(error) from None
    return Sweep(found) if several else found[0][1]


def _config(question: str, value: Any) -> Any:
    if isinstance(value, PathLike):
        return fspath(value)
    if value is None and question in ("choose", "size"):
        return None
    if value in (None, ""):
        raise JobError("no config", remedy="give a path or a mapping", where="config")
    if isinstance(value, str | Mapping):
        return value
    kind = type(value).__name__
    raise JobError(f"a config is a path or a mapping, not {kind}", where="config")


def _path(value: Any) -> str:
    if not isinstance(value, str | PathLike) or not str(value):
        raise JobError("no log", remedy="give its path", where="log")
    return str(fspath(value))


def _check(config: Any, flags: Flags, *, timeline: bool = False) -> CheckResult:
    answer = asked_check(config, flags, timeline=timeline, tell=lambda line: None)
    return CheckResult(answer, timeline=timeline)


def _choose(config: Any, flags: Flags, *, largest: str | None = None, **own: Any) -> Result:
    job = job_of(config, flags)
    if largest is not None:
        return LargestResult(chosen.largest(job, flags, largest), job)
    return ChoiceResult(chosen.choose(job, flags, chosen.Wishes(**own)))


def _size(config: Any, flags: Flags, **own: Any) -> SizeResult:
    return SizeResult(chosen.size(job_of(config, flags), flags, chosen.Wishes(**own)))
