"""Context of a rule: what it may look at, and how it says what it found."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from zero_sizer.config.document import Document
from zero_sizer.config.keys import table
from zero_sizer.config.settings import Settings
from zero_sizer.config.workload import Workload
from zero_sizer.findings import Direction, Finding, Severity
from zero_sizer.util import spelling
from zero_sizer.util.records import dataclass

if TYPE_CHECKING:  # importing these packages costs a part of a cold start
    from zero_sizer.hardware.cluster import Cluster
    from zero_sizer.models.spec import ModelSpec

ZERO = "zero_optimization."
OFFLOAD_OPTIMIZER = ZERO + "offload_optimizer."
OFFLOAD_PARAM = ZERO + "offload_param."


@dataclass(frozen=True, kw_only=True)
class Context:
    """A resolved config and the job around it.

    Attributes:
        document: the config as written: what the user said, and on which line.
        settings: every key resolved; a refused value stands as DeepSpeed's default here.
        cluster: the machines.
        workload: what the flags say.
        model: the model, or None when none was named.
    """

    document: Document
    settings: Settings
    cluster: "Cluster"
    workload: Workload
    model: "ModelSpec | None" = None

    def value(self, key: str) -> Any:
        """Resolved value of ``key``; None when nothing is known of it."""
        setting = self.settings.by_key.get(key)
        return None if setting is None else setting.value

    def flag(self, key: str) -> bool:
        """True if ``key`` counts as true for DeepSpeed."""
        return bool(self.value(key))

    def text(self, key: str) -> str:
        """Value of ``key`` if it is a string, else ""."""
        value = self.value(key)
        return value if isinstance(value, str) else ""

    def number(self, key: str) -> float | None:
        """Value of ``key`` if it is a number, else None."""
        value = self.value(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return value

    def mapping(self, key: str) -> Mapping[str, Any]:
        """The object as written at ``key``, or an empty one."""
        value = self.document.get(key)
        return value if isinstance(value, Mapping) else {}

    def is_written(self, key: str) -> bool:
        """True if the user wrote ``key``, under any of its names, with more than "auto"."""
        return bool(self.document.get(self.spelling(key), "auto") != "auto")

    def spelling(self, key: str) -> str:
        """``key`` as the user spelt it: aliases of keys and sections count."""
        if not key or self.document.has(key):
            return key
        for written in _spellings(key):
            if self.document.has(written):
                return written
        return key

    @property
    def stage(self) -> int:
        """ZeRO stage."""
        return int(self.number(ZERO + "stage") or 0)

    @property
    def optimizer_device(self) -> str:
        """``none``, ``cpu`` or ``nvme``, as the config says."""
        return self.text(OFFLOAD_OPTIMIZER + "device") or "none"

    @property
    def param_device(self) -> str:
        """``none``, ``cpu`` or ``nvme``, as the config says."""
        return self.text(OFFLOAD_PARAM + "device") or "none"

    def error(self, code: str, key: str, message: str, remedy: str = "") -> Finding:
        """DeepSpeed would raise; the message opens with the exception's type."""
        return self._finding(code, Severity.ERROR, key, message, remedy)

    def warning(self, code: str, key: str, message: str, remedy: str = "") -> Finding:
        """Runs, but not as the user thinks."""
        return self._finding(code, Severity.WARNING, key, message, remedy)

    def note(self, code: str, key: str, message: str, remedy: str = "") -> Finding:
        """Worth knowing."""
        return self._finding(code, Severity.NOTE, key, message, remedy)

    def placed(self, finding: Finding) -> Finding:
        """``finding`` with its key as the user spelt it, and the line of that."""
        path = self.spelling(finding.key)
        return replace(finding, key=path, line=self._line(path))

    def _finding(
        self, code: str, severity: Severity, key: str, message: str, remedy: str
    ) -> Finding:
        path = self.spelling(key)
        return Finding(
            code=code,
            severity=severity,
            key=path,
            line=self._line(path),
            message=message,
            remedy=remedy,
        )

    def _line(self, path: str) -> int:
        """Line of a key, or of the nearest section around it that is written."""
        while path:
            line = self.document.line(path)
            if line:
                return line
            path = path.rpartition(".")[0]
        return 0


def left_out(
    finding: Finding, direction: Direction, *, device: str = "gpu", num_bytes: int | None = None
) -> Finding:
    """``finding`` as one that says what the prediction misses, and which way that moves it."""
    return replace(finding, direction=direction, device=device, num_bytes=num_bytes)


Rule = Callable[[Context], Iterable[Finding]]


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that ``name`` most resembles, whatever the case; "" if none does."""
    lowered = {item.lower(): item for item in known}
    near = spelling.nearest(name.lower(), lowered)
    return lowered[near[0]] if near else ""


def _spellings(key: str) -> Iterable[str]:
    """Other names of ``key``: DeepSpeed's field names, old section names."""
    known = table()
    yield from (alias for alias, canonical in known.aliases.items() if canonical == key)
    section, _, name = key.partition(".")
    for old in known.sections.values():
        if old.alias_of == section:
            yield f"{old.path}.{name}" if name else old.path
