"""A diagnosis for a reader, and as JSON."""

from collections.abc import Iterator
from typing import Any

from zero_sizer.config.settings import MODELS_DEEPSPEED
from zero_sizer.hardware.device import Device
from zero_sizer.logs.symptom import Kind, Symptom
from zero_sizer.questions.diagnose import Diagnosis
from zero_sizer.report.document import print_document
from zero_sizer.report.fixes import fix_mapping, show_fixes
from zero_sizer.report.table import show_line, show_table
from zero_sizer.report.verdict import WORDS, show_job
from zero_sizer.schemas import VERSION
from zero_sizer.units import format_gib
from zero_sizer.util.interval import Interval
from zero_sizer.util.terminal import one_line
from zero_sizer.version import __version__

_TITLES = {
    Kind.GPU: "GPU OUT OF MEMORY",
    Kind.GPU_UNKNOWN: "GPU OUT OF MEMORY",
    Kind.NCCL: "GPU OUT OF MEMORY, in NCCL",
    Kind.HOST_KILLED: "HOST OUT OF MEMORY, the process was killed",
    Kind.KILLED: "KILLED, most likely for the host's memory",
    Kind.HOST: "HOST OUT OF MEMORY",
    Kind.PINNING: "HOST OUT OF PAGE-LOCKED MEMORY",
    Kind.SHARED: "SHARED MEMORY FULL",
    Kind.DISK: "DISK FULL",
}
_OF = {Device.GPU: "of a GPU", Device.HOST: "of a host", Device.NVME: "of a node's NVMe"}


def show(found: Diagnosis) -> None:
    """Print what failed, the prediction beside it, causes and changes."""
    symptom = found.log.cause
    if symptom is None:
        show_line(
            f"NOTHING FOUND   no memory failure in the {found.log.num_lines:,} lines of "
            f"{found.log.source}",
            indent="    ",
        )
        return
    show_line(f"{_TITLES[symptom.kind]}   {_where(found, symptom)}", indent="    ")
    show_line(f"{found.log.source}:{symptom.line}: {one_line(symptom.text, 300)}", indent="    ")
    if found.sizing is not None:
        show_job(found.sizing)
    print()
    show_table(("", "in the log", "predicted"), list(_rows(found, symptom)), right=(1, 2))
    if found.causes:
        print()
        for number, cause in enumerate(found.causes, 1):
            remedy = f"; {cause.remedy}" if cause.remedy else ""
            show_line(f"{number}. {cause.message}{remedy} [{cause.code}]", indent="   ")
    if found.fixes:
        print()
        show_fixes(found.fixes)
    elif found.sizing is None:
        print("\nWith the config and --model, the prediction stands beside this, with changes.")


def _where(found: Diagnosis, symptom: Symptom) -> str:
    parts = []
    if symptom.rank is not None:
        parts.append(f"on rank {symptom.rank}")
    if symptom.phase is not None:
        told = f" ({symptom.place})" if symptom.place else ""
        before = "" if symptom.is_from_stack else "after what was logged last: "
        parts.append(f"{before}in {symptom.phase.value}{told}")
    else:
        parts.append("nothing tells in which phase")
    same = sum(other.kind is symptom.kind for other in found.log.symptoms)
    if same > 1:
        parts.append(f"{same} times in all")
    return ", ".join(parts)


def _rows(found: Diagnosis, symptom: Symptom) -> Iterator[tuple[str, str, str]]:
    predicted, sizing = found.predicted, found.sizing
    asked = ", ".join(a.name for a in found.asked_for)
    if symptom.requested is not None:
        yield ("asked for", format_gib(symptom.requested.expected), asked)
    in_phase = f" in {symptom.phase.value}" if symptom.phase else ""
    yield (
        f"allocated{in_phase}",
        _size(symptom.allocated or symptom.resident or found.log.last_allocated or None),
        _size(predicted),
    )
    if symptom.idle is not None:
        yield ("reserved, not allocated", format_gib(symptom.idle), "")
    if symptom.others:
        yield ("of other processes", format_gib(symptom.others), "")
    there = None if sizing is None else sizing.capacities[symptom.device].num_bytes
    yield (f"capacity {_OF[symptom.device]}", _size(symptom.total), _size(there))
    if sizing is not None:
        yield ("verdict", "", WORDS[sizing.verdict])


def _size(num_bytes: int | None) -> str:
    return "" if num_bytes is None else format_gib(num_bytes)


def diagnosis_mapping(found: Diagnosis) -> dict[str, Any]:
    """The diagnosis as JSON."""
    cause, sizing = found.log.cause, found.sizing
    return {
        "schema_version": VERSION,
        "zero_sizer": __version__,
        "models_deepspeed": MODELS_DEEPSPEED,
        "log": found.log.source,
        "lines": found.log.num_lines,
        "cause": None if cause is None else _symptom(cause),
        "symptoms": [_symptom(symptom) for symptom in found.log.symptoms],
        "last_label": found.log.last_label,
        "predicted_bytes": found.predicted,
        "asked_for": [allocation.name for allocation in found.asked_for],
        "verdict": None if sizing is None else sizing.verdict.value,
        "causes": [
            {"code": one.code, "message": one.message, "remedy": one.remedy} for one in found.causes
        ],
        "fixes": [fix_mapping(fix) for fix in found.fixes],
    }


def _symptom(symptom: Symptom) -> dict[str, Any]:
    request: Interval | None = symptom.requested
    return {
        "kind": symptom.kind.value,
        "device": symptom.device.value,
        "line": symptom.line,
        "text": symptom.text,
        "phase": symptom.phase.value if symptom.phase else None,
        "place": symptom.place,
        "from_stack": symptom.is_from_stack,
        "rank": symptom.rank,
        "gpu": symptom.gpu,
        "requested_bytes": None if request is None else request.expected,
        "total_bytes": symptom.total,
        "free_bytes": symptom.free,
        "allocated_bytes": symptom.allocated,
        "reserved_unallocated_bytes": symptom.idle,
        "in_use_bytes": symptom.in_use,
        "other_processes_bytes": symptom.others,
        "resident_bytes": symptom.resident,
        "fragmented": symptom.is_fragmented,
    }


def print_diagnosis(found: Diagnosis) -> None:
    """Print the diagnosis as JSON."""
    print_document(diagnosis_mapping(found))
