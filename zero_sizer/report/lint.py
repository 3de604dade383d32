"""Findings of many configs: for a reader, as JSON, and as annotations of GitHub."""

from collections.abc import Sequence
from typing import Any

from zero_sizer.config.settings import MODELS_DEEPSPEED
from zero_sizer.findings import Finding, Severity
from zero_sizer.questions.lint import STDIN, Linted
from zero_sizer.report.document import print_document
from zero_sizer.report.json import finding_mapping
from zero_sizer.schemas import VERSION
from zero_sizer.util.terminal import one_line
from zero_sizer.version import __version__

_PLACE = {STDIN: "<stdin>"}
_GITHUB = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "notice"}


def place(file: str) -> str:
    """Name of a file for a reader."""
    return _PLACE.get(file, file)


def show(found: Sequence[Linted]) -> None:
    """Print one line a finding, which begins with file and line, and a summary."""
    for linted in found:
        for finding in linted.findings:
            print(_line(linted.file, finding))
    print(_summary(found))


def _line(file: str, finding: Finding) -> str:
    where = place(finding.file or file) + (f":{finding.line}" if finding.line else "")
    return one_line(f"{where}: {finding.severity.value}: {words(finding)} [{finding.code}]")


def words(finding: Finding) -> str:
    """Key, message and remedy of a finding."""
    key = f"{finding.key}: " if finding.key else ""
    return key + finding.message + (f"; {finding.remedy}" if finding.remedy else "")


def _summary(found: Sequence[Linted]) -> str:
    severities = [finding.severity for linted in found for finding in linted.findings]
    counts = ((severities.count(severity), severity.value) for severity in Severity)
    told = [_times(count, name) for count, name in counts if count]
    return f"{_times(len(found), 'file')}: {', '.join(told) or 'nothing wrong'}"


def _times(count: int, name: str) -> str:
    return f"{count:,} {name}{'' if count == 1 else 's'}"


def lint_mapping(found: Sequence[Linted]) -> dict[str, Any]:
    """The findings as JSON."""
    return {
        "schema_version": VERSION,
        "zero_sizer": __version__,
        "models_deepspeed": MODELS_DEEPSPEED,
        "valid": all(linted.is_valid for linted in found),
        "files": [
            {
                "file": linted.file,
                "readable": linted.is_readable,
                "valid": linted.is_valid,
                "findings": [finding_mapping(finding) for finding in linted.findings],
            }
            for linted in found
        ],
    }


def print_json(found: Sequence[Linted]) -> None:
    """Print the findings as JSON."""
    print_document(lint_mapping(found))


def print_github(found: Sequence[Linted]) -> None:
    """Print workflow commands, of which GitHub makes annotations of a pull request."""
    for linted in found:
        for finding in linted.findings:
            properties = [f"file={_property(place(finding.file or linted.file))}"]
            if finding.line:
                properties.append(f"line={finding.line}")
            properties.append(f"title={_property(finding.code)}")
            kind = _GITHUB[finding.severity]
            print(f"::{kind} {','.join(properties)}::{_data(words(finding))}")


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
