"""Answers as objects: typed attributes, the JSON of the command line, text and HTML."""

import io
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from functools import cached_property
from threading import Lock
from typing import Any

from zero_sizer.advise.choose import Choice
from zero_sizer.advise.fleet import Fleet
from zero_sizer.advise.largest import Largest
from zero_sizer.answer import Answer
from zero_sizer.api import display
from zero_sizer.api.devices import DeviceUse
from zero_sizer.cli.streams import escaped
from zero_sizer.findings import Finding, Reason
from zero_sizer.job.read import Job
from zero_sizer.ledger.entry import Allocation
from zero_sizer.ledger.verdict import Verdict
from zero_sizer.report import advice, fleet, largest, nodes
from zero_sizer.report import choice as choice_sheet
from zero_sizer.report.document import plain
from zero_sizer.report.fixes import fix_line
from zero_sizer.report.formats import reporter
from zero_sizer.report.json import device_mapping, whole_mapping
from zero_sizer.report.verdict import reason_line

_PRINTING = Lock()  # standard output is one for all threads
_SHOWN = 10  # allocations of a notebook's table


class Printable:
    """An answer as the command line prints it, in text and as JSON."""

    def __init__(self, mapping: Callable[[], Mapping[str, Any]], show: Callable[[], None]) -> None:
        self._mapping = mapping
        self._show = show

    @cached_property
    def _document(self) -> dict[str, Any]:
        found: dict[str, Any] = plain(self._mapping())
        return found

    def to_dict(self) -> dict[str, Any]:
        """The JSON of the command line's ``--format json``; a copy of your own."""
        found: dict[str, Any] = plain(self._document)
        return found

    @cached_property
    def _text(self) -> str:
        with _PRINTING, redirect_stdout(io.StringIO()) as printed:
            self._show()
        return escaped(printed.getvalue()).rstrip("\n")

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self._text.partition(chr(10))[0]}>"

    def _repr_html_(self) -> str:
        return f"<pre>{display.text(self._text)}</pre>"


class Result(Printable):
    """An answer with a verdict.

    Attributes:
        verdict: ``fits``, ``does_not_fit`` or ``uncertain``.
        reasons: what decides it, the most telling first.
        findings: what is wrong or worth knowing about the job, worst first.
    """

    verdict: str
    reasons: tuple[Reason, ...]
    findings: tuple[Finding, ...] = ()

    @property
    def fits(self) -> bool:
        """True if it fits for certain, and DeepSpeed would run it: exit code 0."""
        return self.verdict == Verdict.FITS.value

    def row(self) -> dict[str, Any]:
        """Figures for a table, one row an answer."""
        return {"verdict": self.verdict}


class CheckResult(Result):
    """Needs of one job, and whether it fits.

    Attributes:
        valid: DeepSpeed would run it.
        devices: ``gpu``, ``host`` and ``nvme`` -> what it takes of each.
        phases: device -> phase -> the most in it, in bytes.
        allocations: every allocation, in the order of the ledger.
        fixes: changes that would make it fit, as in the JSON.
        speed: seconds of a step and tokens a second, as in the JSON; empty where it cannot run.
        training: the whole run, as in the JSON; None where nobody said how much it is.
        job: every value that was used -> ``value`` and ``origin``.
    """

    def __init__(self, answer: Answer, *, timeline: bool = False) -> None:
        super().__init__(
            lambda: whole_mapping(answer, timeline=timeline),
            lambda: reporter("check", "text")(answer, timeline=timeline),
        )
        sizing = answer.sizing
        self._answer = answer
        self.verdict = sizing.verdict.value
        self.valid = sizing.is_valid
        self.reasons = sizing.reasons
        self.findings = sizing.findings
        self.allocations: tuple[Allocation, ...] = sizing.allocations

    @property
    def fits(self) -> bool:
        """True if it fits for certain, and DeepSpeed would run it: exit code 0."""
        return self.valid and super().fits

    @cached_property
    def devices(self) -> Mapping[str, DeviceUse]:
        """Device -> what the job takes of it."""
        sizing = self._answer.sizing
        return {
            device.value: DeviceUse.of(device_mapping(sizing, device, found))
            for device, found in self._answer.devices.items()
        }

    @property
    def phases(self) -> Mapping[str, Mapping[str, int]]:
        """Device -> phase -> the most in it, in bytes."""
        return {
            device.value: {phase.value: peak for phase, peak in found.phases.items()}
            for device, found in self._answer.devices.items()
        }

    @property
    def fixes(self) -> list[dict[str, Any]]:
        """Changes that would make it fit, the least disruptive first."""
        return self.to_dict()["fixes"]  # type: ignore[no-any-return]

    @property
    def speed(self) -> dict[str, Any]:
        """Seconds of a step and tokens a second; empty where it cannot run."""
        found: dict[str, Any] = plain(dict(self._answer.speed or {}))
        return found

    @property
    def training(self) -> dict[str, Any] | None:
        """The whole run; None where nobody said how much it is."""
        return self.to_dict().get("training")

    @property
    def job(self) -> dict[str, Any]:
        """Key or flag -> ``value`` and ``origin``."""
        return self.to_dict()["job"]  # type: ignore[no-any-return]

    def row(self) -> dict[str, Any]:
        """Figures for a table: bytes of each device, seconds and tokens a second."""
        found: dict[str, Any] = {"verdict": self.verdict, "valid": self.valid, "fits": self.fits}
        for name, use in self.devices.items():
            for figure in ("peak", "low", "high", "capacity", "headroom"):
                found[f"{name}_{figure}_bytes"] = getattr(use, f"{figure}_bytes")
        speed = self.speed
        found["step_seconds"] = speed.get("step_seconds", {}).get("expected")
        rate = speed.get("tokens_per_second_per_gpu", {})
        found["tokens_per_second_per_gpu"] = rate.get("expected")
        found["reason"] = reason_line(self.reasons[0]) if self.reasons else ""
        return found

    def _repr_html_(self) -> str:
        lines = self._text.splitlines()
        about = reason_line(self.reasons[0]) if self.reasons else lines[0].partition("   ")[2]
        phases = list(self.phases["gpu"])
        rows = [
            [name, *(display.size(self.phases[name][phase]) for phase in phases)]
            + [display.size(size) for size in (use.peak_bytes, use.high_bytes, use.capacity_bytes)]
            for name, use in self.devices.items()
            if use.peak_bytes
        ]
        live = self._answer.devices.values()
        largest_first = [
            [allocation.name, allocation.device.value, display.size(size), allocation.about]
            for found in live
            for allocation, size in found.live[:_SHOWN]
        ]
        parts = [
            display.badge(self.verdict if self.valid else "not_valid", about),
            display.table(["", *phases, "peak", "at most", "capacity"], rows),
            display.listing(fix_line(fix) for fix in self._answer.fixes),
            display.table(["at the peak", "device", "size", "what it is"], largest_first),
            display.listing(f"{f.severity.value}: {f.key} {f.message}" for f in self.findings),
        ]
        return "\n".join(part for part in parts if part)


class ChoiceResult(Result):
    """The plan to run on a cluster.

    Attributes:
        chosen: the plan with its speed, as in the JSON; None where nothing fits.
        config: its DeepSpeed config.
        runners_up: the best plans of the other strategies that fit.
    """

    def __init__(self, choice: Choice) -> None:
        super().__init__(lambda: advice.choice_mapping(choice), lambda: advice.show_choice(choice))
        self.verdict = choice.verdict.value
        self.reasons = choice.reasons
        self.findings = tuple(choice.search.warnings)
        self._choice = choice

    @property
    def chosen(self) -> dict[str, Any] | None:
        """The plan with its speed; None where nothing fits."""
        return self.to_dict()["chosen"]  # type: ignore[no-any-return]

    @property
    def config(self) -> dict[str, Any] | None:
        """DeepSpeed config of the plan; None where nothing fits."""
        return self.to_dict()["config"]  # type: ignore[no-any-return]

    @property
    def runners_up(self) -> list[dict[str, Any]]:
        """The best plans of the other strategies that fit, fastest first."""
        return self.to_dict()["runners_up"]  # type: ignore[no-any-return]

    def row(self) -> dict[str, Any]:
        """Figures for a table: the plan and its speed."""
        return {"verdict": self.verdict, **_plan_row(self._document["chosen"])}

    def _repr_html_(self) -> str:
        return display.sheet(choice_sheet.sheet_of(self._choice))


class LargestResult(Result):
    """The largest micro batch, sequence, model or LoRA rank that fits.

    Attributes:
        what: of which it is the largest.
        largest: the answer; None where not even the smallest fits.
        config: the DeepSpeed config that carries it.
    """

    def __init__(self, found: Largest, job: Job) -> None:
        super().__init__(
            lambda: largest.largest_mapping(found, job), lambda: largest.show_largest(found, job)
        )
        fits = found.value is not None
        self.verdict = (Verdict.FITS if fits else Verdict.DOES_NOT_FIT).value
        self.reasons = ()
        self.findings = found.sizing.findings if found.sizing else ()
        self.what = found.what
        self.largest = found.value

    @property
    def config(self) -> dict[str, Any] | None:
        """DeepSpeed config that carries it; None where nothing fits."""
        return self.to_dict()["config"]  # type: ignore[no-any-return]

    def row(self) -> dict[str, Any]:
        """Figures for a table: the largest, and the strategy that carries it."""
        strategy = self._document["strategy"]
        return {"verdict": self.verdict, "largest": self.largest, "strategy": strategy}


class SizeResult(Result):
    """The fewest GPUs or nodes.

    Attributes:
        smallest: the plan on the fewest, as in the JSON; None where nothing fits.
        fewest: one row a strategy, as in the JSON.
        sizes: one row a number of nodes, as in the JSON.
    """

    def __init__(self, found: Fleet) -> None:
        super().__init__(lambda: fleet.fleet_mapping(found), lambda: fleet.show_fleet(found))
        self.verdict = found.verdict.value
        self.reasons = found.reasons
        self.findings = tuple(found.search.warnings)
        self._fleet = found

    @property
    def fits(self) -> bool:
        """True if a plan fits and reaches what was wanted: exit code 0."""
        return self._fleet.is_reached and super().fits

    @property
    def smallest(self) -> dict[str, Any] | None:
        """The plan on the fewest; None where nothing fits."""
        plan = self._fleet.smallest
        return None if plan is None else plain(advice.plan_mapping(plan))

    @property
    def fewest(self) -> list[dict[str, Any]]:
        """The fewest for each strategy."""
        return self.to_dict()["fewest"]  # type: ignore[no-any-return]

    @property
    def sizes(self) -> list[dict[str, Any]]:
        """The best plan of every number of nodes."""
        return self.to_dict()["sizes"]  # type: ignore[no-any-return]

    def row(self) -> dict[str, Any]:
        """Figures for a table: the plan on the fewest."""
        return {"verdict": self.verdict, "fits": self.fits, **_plan_row(self.smallest)}

    def _repr_html_(self) -> str:
        return display.sheet(nodes.sheet_of(self._fleet))


_PLAN = (
    *("strategy", "nodes", "world_size", "micro_batch", "gradient_accumulation_steps"),
    *("checkpointing", "step_seconds", "tokens_per_second"),
)


def _plan_row(plan: Mapping[str, Any] | None) -> dict[str, Any]:
    found = {name: None if plan is None else plan[name] for name in _PLAN}
    peaks = {} if plan is None else plan["peak_bytes"]
    return found | {f"{name}_peak_bytes": peaks.get(name) for name in ("gpu", "host", "nvme")}
