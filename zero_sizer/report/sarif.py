"""Findings in SARIF 2.1.0, the form in which code scanning of GitHub and editors take them."""

import os
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from zero_sizer.findings import Finding
from zero_sizer.questions.lint import STDIN, Linted
from zero_sizer.report.document import print_document
from zero_sizer.report.lint import words
from zero_sizer.version import __version__

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def sarif_mapping(found: Sequence[Linted]) -> dict[str, Any]:
    """One run with a result for every finding."""
    codes = sorted({finding.code for linted in found for finding in linted.findings})
    numbers = {code: number for number, code in enumerate(codes)}
    return {
        "$schema": _SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "zero-sizer",
                        "version": __version__,
                        "rules": [_rule(code) for code in codes],
                    }
                },
                "columnKind": "unicodeCodePoints",
                "results": [
                    _result(linted.file, finding, numbers[finding.code])
                    for linted in found
                    for finding in linted.findings
                ],
            }
        ],
    }


def print_sarif(found: Sequence[Linted]) -> None:
    """Print the findings as SARIF."""
    print_document(sarif_mapping(found))


def _rule(code: str) -> dict[str, Any]:
    return {"id": code, "shortDescription": {"text": code.replace("-", " ")}}


def _result(file: str, finding: Finding, number: int) -> dict[str, Any]:
    place: dict[str, Any] = {"artifactLocation": {"uri": _uri(finding.file or file)}}
    if finding.line:
        place["region"] = {"startLine": finding.line}
    return {
        "ruleId": finding.code,
        "ruleIndex": number,
        "level": finding.severity.value,
        "message": {"text": words(finding)},
        "locations": [{"physicalLocation": place}],
    }


def _uri(file: str) -> str:
    """Relative where the file was named so, as the tools want it to find it in a checkout."""
    if file in (STDIN, ""):
        return "stdin" if file else "unnamed"
    path = file.replace(os.sep, "/")
    path = path[2:] if path.startswith("./") else path
    return ("file://" if path.startswith("/") else "") + quote(path, errors="backslashreplace")
