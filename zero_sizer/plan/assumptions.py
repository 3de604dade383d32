"""Values that nobody stated: taken, and said."""

from __future__ import annotations

from dataclasses import field
from typing import Any

from zero_sizer.config.settings import Setting
from zero_sizer.findings import Direction, Finding, Severity
from zero_sizer.util.records import dataclass


@dataclass
class Assumptions:
    """Assumptions in place of what nobody stated: each is a finding, never silent."""

    findings: list[Finding] = field(default_factory=list)
    settings: dict[str, Setting] = field(default_factory=dict)

    def take(
        self,
        key: str,
        value: Any,
        message: str,
        remedy: str,
        direction: Direction | None = None,
        device: str = "gpu",
    ) -> Any:
        """Note that ``key`` was assumed to be ``value``, and how another would move the answer."""
        self.findings.append(
            Finding(
                code=f"assumed-{key.replace('_', '-')}",
                severity=Severity.NOTE,
                key=f"--{key.replace('_', '-')}",
                message=message,
                remedy=remedy,
                direction=direction,
                device=device,
            )
        )
        self.settings[key] = Setting(value, "assumed: not stated", is_default=True)
        return value
