"""Findings of many configs as an object."""

from collections.abc import Sequence

from zero_sizer.api import display
from zero_sizer.api.results import Printable
from zero_sizer.findings import Finding
from zero_sizer.questions.lint import Linted
from zero_sizer.report import lint


class LintResult(Printable):
    """Findings of configs, whichever model and cluster they are meant for.

    Attributes:
        files: file by file, in the order given.
        findings: of all of them.
        valid: no file has an error.
    """

    def __init__(self, found: Sequence[Linted]) -> None:
        super().__init__(lambda: lint.lint_mapping(found), lambda: lint.show(found))
        self.files: tuple[Linted, ...] = tuple(found)
        self.findings: tuple[Finding, ...] = tuple(f for one in found for f in one.findings)
        self.valid = all(one.is_valid for one in found)

    def __repr__(self) -> str:
        return f"<LintResult: {self._text.splitlines()[-1]}>"

    def _repr_html_(self) -> str:
        rows = [
            [one.file, f.line or "", f.severity.value, lint.words(f), f.code]
            for one in self.files
            for f in one.findings
        ]
        heads = ["file", "line", "severity", "what", "code"]
        summary = f"<p>{display.text(self._text.splitlines()[-1])}</p>"
        return summary + (display.table(heads, rows) if rows else "")
