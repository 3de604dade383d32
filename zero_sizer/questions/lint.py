"""Validation of configs without a model: what is wrong whichever cluster they run on."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product
from typing import Any

from zero_sizer import checks
from zero_sizer.config.batch import KEYS as BATCH_KEYS
from zero_sizer.config.context import Context
from zero_sizer.config.document import MAX_BYTES, Document, from_mapping, parse
from zero_sizer.config.resolve import resolve
from zero_sizer.config.workload import Workload
from zero_sizer.errors import InputError
from zero_sizer.findings import Finding, Severity
from zero_sizer.hardware.assemble import Stated, assemble
from zero_sizer.hardware.cluster import Cluster
from zero_sizer.job.read import without_model
from zero_sizer.util.records import dataclass

STDIN = "-"
UNREADABLE = "unreadable"
"""Code of the finding that a file cannot be read as a config at all."""

_ON_THE_MODEL = ("auto-unresolved",)  # of which --model or --micro-batch decides
_SIZES = (1, 8, 64)  # ranks that many clusters have
_A_NODE = 8
_MOST = 2**16
_GROUPS = (
    "tensor_parallel.autotp_size",
    "tensor_parallel.tp.tp_size",
    "sequence_parallel_size",
    "expert_parallel.autoep_size",
    "expert_parallel.expert_tensor_parallel_size",
    "zero_optimization.zero_hpz_partition_size",
    "pipeline.stages",
)


@dataclass(frozen=True, kw_only=True)
class Linted:
    """Findings of one file.

    Attributes:
        file: as it was named.
        findings: what is wrong or worth knowing, worst first; where a line is of another file
            than the one named, as of the config that a job file names, with that file.
    """

    file: str
    findings: tuple[Finding, ...]

    @property
    def is_readable(self) -> bool:
        """True if it could be read as a config at all."""
        return all(finding.code != UNREADABLE for finding in self.findings)

    @property
    def is_valid(self) -> bool:
        """True if DeepSpeed would not raise on it, as far as no model is needed to tell."""
        return all(finding.severity is not Severity.ERROR for finding in self.findings)


def lint(config: str | Mapping[str, Any]) -> Linted:
    """Validate one config: a DeepSpeed JSON, a job YAML, ``-`` or a mapping; nothing is raised."""
    name = config if isinstance(config, str) else "<dict>"
    try:
        document, cluster, workload = _read(config)
    except InputError as error:
        return Linted(file=name, findings=(_unreadable(error, name),))
    clusters = [cluster] if cluster is not None else list(_clusters(document))
    found = [_findings(document, workload, each) for each in clusters]
    certain = [f for f in found[0] if all(_same(f) in set(map(_same, other)) for other in found)]
    severities = list(Severity)
    order = sorted(certain, key=lambda f: (severities.index(f.severity), f.line))
    return Linted(file=name, findings=tuple(_placed(f, document.source, name) for f in order))


def _placed(finding: Finding, source: str, name: str) -> Finding:
    """The finding with the file that its line is of, where that is not the file ``name``."""
    is_of_config = finding.line > 0 and not finding.file
    return replace(finding, file=source) if is_of_config and source != name else finding


def _read(config: str | Mapping[str, Any]) -> tuple[Document, Cluster | None, Workload]:
    if isinstance(config, Mapping):
        return from_mapping(config), None, Workload()
    if config != STDIN:
        return without_model(config)
    return parse(_standard_input(), STDIN), None, Workload()


def _standard_input() -> bytes:
    stream = getattr(sys.stdin, "buffer", None)
    if stream is None:
        raise InputError("there is no standard input", where=STDIN)
    raw: bytes = stream.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        size = f"{MAX_BYTES >> 10} KiB"
        raise InputError(f"is larger than {size}: not a DeepSpeed config", where=STDIN)
    return raw


def _unreadable(error: InputError, name: str) -> Finding:
    file, _, line = error.where.rpartition(":")
    return Finding(
        code=UNREADABLE,
        severity=Severity.ERROR,
        line=int(line[:9]) if line.isdecimal() else 0,
        file=file if line.isdecimal() and file != name else "",
        message=error.message,
        remedy=error.remedy,
    )


def errors_on(document: Document, cluster: Cluster) -> list[Finding]:
    """Errors that DeepSpeed would raise on a config on these machines, whatever the model."""
    found = _findings(document, Workload(), cluster)
    return [finding for finding in found if finding.severity is Severity.ERROR]


def _findings(document: Document, workload: Workload, cluster: Cluster) -> list[Finding]:
    settings, found = resolve(document, workload, world_size=cluster.world_size, model=None)
    context = Context(document=document, settings=settings, cluster=cluster, workload=workload)
    return [f for f in (*found, *checks.run(context)) if _is_about_config(f)]


def _is_about_config(finding: Finding) -> bool:
    """Neither about what a model decides, nor about what a prediction would leave out."""
    is_beside = finding.code in _ON_THE_MODEL or finding.direction is not None
    return finding.severity is Severity.ERROR or not is_beside


def _same(finding: Finding) -> tuple[str, str, str]:
    """Identity of a finding on other clusters: its words may name the number of ranks."""
    return finding.code, finding.key, finding.severity.value


def _clusters(document: Document) -> Iterator[Cluster]:
    """Clusters that a config may be meant for: of usual sizes, and of those that it speaks of.

    What is wrong on every one of them is wrong.
    """
    groups = [size for key in _GROUPS if (size := _count(document.get(key))) > 1]
    together = 1
    for size in groups:
        together = min(together * size, _MOST)
    batch = _implied(document)
    ranks = {*_SIZES, *groups, together, batch, batch * together}
    ranks |= {batch * size for size in groups}
    for size in sorted(size for size in ranks if 0 < size <= _MOST):
        yield _cluster(1, size)
    for nodes, each in product(sorted({2, *groups, together}), (_A_NODE,)):
        yield _cluster(nodes, each)


def _cluster(nodes: int, each: int) -> Cluster:
    values = {"nodes": nodes, "gpus_per_node": each}
    return assemble({name: Stated(value, "assumed") for name, value in values.items()})


def _implied(document: Document) -> int:
    """Ranks that the batch keys add up to; 1 where they do not say."""
    train, micro, accum = (_count(document.get(key)) for key in BATCH_KEYS)
    samples = max(micro, 1) * max(accum, 1)
    return train // samples if train and train % samples == 0 else 1


def _count(value: Any) -> int:
    """A number from 1 on as an int; 0 for all else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    return int(value) if 1 <= value <= 2**40 and value == int(value) else 0
