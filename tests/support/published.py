"""Published measurements beside what the ledger says, as intervals: both sides may be one.

A measurement given in "GB" without saying which lies between GB and GiB; what ``nvidia-smi`` shows
contains what others take of the device, which is known as a range only.
"""

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

from zero_sizer import models
from zero_sizer.config import document
from zero_sizer.config.workload import Checkpointing, Workload
from zero_sizer.hardware.assemble import Stated, assemble
from zero_sizer.hardware.cluster import Cluster
from zero_sizer.hardware.device import Device
from zero_sizer.job.read import Job
from zero_sizer.ledger.entry import Category
from zero_sizer.ledger.moments import STEPPING, Moment
from zero_sizer.ledger.peak import phase_peaks
from zero_sizer.models.changes import lora, lora_config
from zero_sizer.models.spec import ModelSpec, Tensor
from zero_sizer.sizing import Sizing, size
from zero_sizer.units import GIB, MIB, DType

DATA = Path(__file__).parents[1] / "data"
MEASUREMENTS = DATA / "published_measurements.json"
ERRORS = DATA / "published_errors.json"
LIMITS = DATA.parent.parent / "docs" / "limits.md"
UNITS = {"GiB": (GIB, GIB), "MiB": (MIB, MIB), "GB": (10**9, 10**9), "GB or GiB": (10**9, GIB)}


@dataclass(frozen=True)
class Row:
    """One measurement and the job it was taken from."""

    job: dict[str, Any]
    fields: dict[str, Any]

    @property
    def id(self) -> str:
        return self.fields["id"]

    @property
    def is_outcome(self) -> bool:
        return self.fields["quantity"] == "outcome"

    @property
    def measured(self) -> tuple[float, float]:
        low, high = UNITS[self.fields["unit"]]
        return self.fields["value"] * low, self.fields["value"] * high


@cache
def read() -> dict[str, Any]:
    return json.loads(MEASUREMENTS.read_text())


def rows() -> list[Row]:
    return [Row(job, fields) for job in read()["jobs"] for fields in job["rows"]]


def sizing_of(row: Row) -> Sizing:
    return _sizing(*_parts(row))


def job_of(row: Row) -> Job:
    return _job(*_parts(row))


def _parts(row: Row) -> Iterator[str]:
    workload = {**row.job.get("workload", {}), **row.fields.get("workload", {})}
    parts = (row.job["model"], row.job.get("config", {}), row.job.get("cluster", {}), workload)
    extras = {key: row.job[key] for key in ("lora", "buffers") if key in row.job}
    return (json.dumps(part) for part in (*parts, extras))


@cache
def _sizing(model: str, config: str, cluster: str, workload: str, extras: str) -> Sizing:
    return size(_job(model, config, cluster, workload, extras))


def _job(model: str, config: str, cluster: str, workload: str, extras: str) -> Job:
    spec = _model(model)
    extra = json.loads(extras)
    if "lora" in extra:
        spec = _with_lora(spec, **extra["lora"])
    masks = tuple(
        Tensor(name, tuple(shape), DType(dtype), trainable=False)
        for name, shape, dtype in extra.get("buffers", ())
    )
    return Job(
        document=document.from_mapping(json.loads(config)),
        model=replace(spec, buffers=(*spec.buffers, *masks)),
        cluster=cluster_of(json.loads(cluster)),
        workload=_workload(json.loads(workload)),
        origins={},
    )


def _workload(fields: dict[str, Any]) -> Workload:
    by = (
        {"checkpointing_how": Checkpointing(by=fields["checkpointing_how"])}
        if "checkpointing_how" in fields
        else {}
    )
    return Workload(**{**fields, **by})


def cluster_of(fields: dict[str, Any]) -> Cluster:
    return assemble({name: Stated(value, "published") for name, value in fields.items()})


@cache
def _model(text: str) -> ModelSpec:
    reference = json.loads(text)
    if isinstance(reference, str):
        return models.load(reference)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        path.write_text(text)
        return models.load(str(path))


def _with_lora(spec: ModelSpec, rank: int, modules: list[str]) -> ModelSpec:
    """The base frozen, two small trainable matrices beside each of ``modules``."""
    targets = "+".join(name.rpartition(".")[2] for name in modules)
    return lora.with_adapter(spec, lora_config.read(f"r={rank},targets={targets}", "published"))


def predicted(row: Row) -> tuple[float, float]:
    """Bytes, lowest and highest."""
    quantity, sizing = row.fields["quantity"], sizing_of(row)
    found = sizing.capacities[Device.GPU].outside
    outside = (found.low, found.high)
    if quantity == "outside":
        return outside
    if quantity == "host_peak":
        phases = phase_peaks(sizing.moments[Device.HOST])  # measured while it trained
        return (max(phases[phase] for phase in STEPPING),) * 2
    moment = Moment(row.fields["moment"]) if "moment" in row.fields else None
    if quantity == "live":
        return (_live(sizing, moment, row.fields.get("without", [])),) * 2
    gpu = sizing.moments[Device.GPU][moment] if moment else sizing.peaks[Device.GPU].num_bytes
    low, high = outside if quantity == "device_used" else (0, 0)
    return gpu + low, gpu + high


def _live(sizing: Sizing, moment: Moment | None, without: list[str]) -> int:
    """What stays at this moment: a log line is printed between operations, not within one."""
    return sum(
        a.num_bytes
        for a in sizing.allocations
        if a.device is Device.GPU
        and moment in a.moments
        and a.category is not Category.TEMPORARY
        and a.category.value not in without
    )


def error_percent(row: Row) -> float:
    """How far apart the two intervals are, of the measured one; 0 where they overlap."""
    (low, high), (least, most) = predicted(row), row.measured
    if low > most:
        return round(100 * (low / most - 1), 2)
    return round(100 * (high / least - 1), 2) if high < least else 0.0


def errors() -> dict[str, float]:
    """Today's error of every row, in percent."""
    return {row.id: error_percent(row) for row in rows() if not row.is_outcome}


def table() -> str:
    """Predicted, measured and error of every row, for a reader."""
    lines = [f"{'':44} {'predicted GiB':>15} {'measured GiB':>15} {'error':>8}  why"]
    lines += [_line(row) for row in rows() if not row.is_outcome]
    return "\n".join(lines)


def _line(row: Row) -> str:
    cells = (_gib(*predicted(row)), _gib(*row.measured), f"{error_percent(row):+.2f}%")
    why = row.fields.get("why") or row.job.get("why", "")
    return f"{row.id:44} {cells[0]:>15} {cells[1]:>15} {cells[2]:>8}  {why}"


def _gib(low: float, high: float) -> str:
    first, last = f"{low / GIB:.2f}", f"{high / GIB:.2f}"
    return first if first == last else f"{first}-{last}"


def with_summary(text: str, errors_percent: dict[str, float], outcomes: str) -> str:
    """docs/limits.md with a summary between its markers."""
    first, start, rest = text.partition("<!-- published:start -->\n")
    _, end, last = rest.partition("<!-- published:end -->")
    if not (start and end):
        raise ValueError("docs/limits.md has no markers published:start and published:end")
    return f"{first}{start}{error_table(errors_percent)}\n\n{outcomes}\n{end}{last}"


KINDS = {
    "live": "log lines of allocated memory, between operations",
    "highest": "log lines of the highest allocated memory, and an out-of-memory trace",
    "peak": "highest allocated or reserved memory of a run",
    "device_used": "nvidia-smi or NVML, or a table that does not say",
    "outside": "context and NCCL alone",
    "host_peak": "host memory of a process",
}


def error_table(errors_percent: dict[str, float]) -> str:
    """Rows, and the errors' sizes, by how the memory was read."""
    lines = [
        "| read as | rows | median error | worst error | within 2 % |",
        "|---|---|---|---|---|",
    ]
    for quantity, about in KINDS.items():
        found = [row for row in rows() if row.fields["quantity"] == quantity]
        sizes = sorted(abs(errors_percent[row.id]) for row in found)
        close = sum(1 for size in sizes if size <= 2)
        cells = (about, len(found), f"{median(sizes):.1f} %", f"{sizes[-1]:.1f} %", close)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)
