"""The one exception that a question in Python raises."""

from zero_sizer.errors import EngineError, UnsupportedError, WitnessError, ZeroSizerError
from zero_sizer.findings import Finding, Severity

_CODES: tuple[tuple[type[Exception], str], ...] = (
    (UnsupportedError, "unsupported"),
    (EngineError, "engine-stop"),
    (WitnessError, "dry-run-failed"),
)


class JobError(ZeroSizerError):
    """A question that cannot be read or not be answered: a file, a name or a value is wrong.

    What is wrong with a job that *can* be read is no exception: it stands in the ``findings`` of
    the answer.

    Attributes:
        findings: what is wrong, as ``check`` would list it.
        exit_code: what the command line would return.
    """

    def __init__(
        self, message: str, *, remedy: str = "", where: str = "", code: str = "bad-input"
    ) -> None:
        super().__init__(message, remedy=remedy, where=where)
        is_flag = where.startswith("--")
        line = where.rpartition(":")[2]
        self.findings: tuple[Finding, ...] = (
            Finding(
                code=code,
                severity=Severity.ERROR,
                key=where if is_flag else "",
                line=int(line[:9]) if line.isdecimal() and not is_flag else 0,
                message=message,
                remedy=remedy,
            ),
        )


def job_error(error: ZeroSizerError | OSError) -> JobError:
    """The exception that stands for any other of this package, and for a file that cannot be read.

    Args:
        error: what was raised.
    """
    if isinstance(error, JobError):
        return error
    if isinstance(error, OSError):
        return JobError(error.strerror or str(error), where=str(error.filename or ""))
    code = next((code for kind, code in _CODES if isinstance(error, kind)), "bad-input")
    found = JobError(error.message, remedy=error.remedy, where=error.where, code=code)
    found.exit_code = error.exit_code
    return found
