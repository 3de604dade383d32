"""Statements of a CONFIG in our words, whoever's file it is."""

from collections.abc import Callable, Mapping
from dataclasses import field, fields, replace
from typing import Any, Self

from zero_sizer.config.document import Document
from zero_sizer.findings import Finding
from zero_sizer.hardware.assemble import Stated
from zero_sizer.hardware.cluster import Cluster
from zero_sizer.models.spec import ModelSpec
from zero_sizer.util.records import dataclass

NONE_GIVEN = "none given"
"""Origin of the config where there is no CONFIG, or it names none."""
VARIABLE_UNKNOWN = "variable-unknown"
"""An argument whose value only a shell that runs knows."""
NODES_UNKNOWN = "nodes-unknown"
"""A number of nodes that only a shell that runs knows."""
OfModel = Callable[[ModelSpec], Stated | None]
"""A statement that a tool makes of a model by its kind or its layers; None where it makes none."""
OnCluster = Callable[[Cluster], Mapping[str, Stated]]
"""Statements about the workload that a tool derives from the number of ranks."""


@dataclass(frozen=True, kw_only=True)
class Statements:
    """Everything that a CONFIG says.

    Attributes:
        source: the file as the user gave it.
        tool: whose file it is; empty for a DeepSpeed config and a job YAML.
        document: the DeepSpeed config; None where the file names none.
        model: what names the model.
        adapter: a path, words, or fields of ``peft.LoraConfig``.
        quantization: words, or fields of a ``quantization_config``.
        frozen: patterns of what is not trained, as a function of the model.
        excluded: a regular expression of modules that get no adapter, likewise.
        cluster: by the names of the cluster's options, typed.
        workload: by the names of the workload's options, typed; ``freeze`` too.
        on_cluster: what else it says of the workload on a cluster.
        findings: what the file says that is not modelled, and what is odd about it.
        makes_config: no file names a DeepSpeed config, since the program makes its own.
    """

    source: str = ""
    tool: str = ""
    document: Document | None = None
    model: Stated | None = None
    adapter: Stated | None = None
    quantization: Stated | None = None
    frozen: OfModel | None = None
    excluded: OfModel | None = None
    cluster: Mapping[str, Stated] = field(default_factory=dict)
    workload: Mapping[str, Stated] = field(default_factory=dict)
    on_cluster: OnCluster | None = None
    findings: tuple[Finding, ...] = ()
    makes_config: bool = False

    @property
    def hostfile(self) -> str | None:
        """Path of the hostfile that the file names."""
        return str(self.cluster["hostfile"].value) if "hostfile" in self.cluster else None

    def over(self, other: Self) -> Self:
        """These statements, completed by ``other``'s where they say nothing."""
        values: dict[str, Any] = {
            f.name: getattr(self, f.name) or getattr(other, f.name) for f in fields(self)
        }
        for name in ("cluster", "workload"):
            values[name] = {**getattr(other, name), **getattr(self, name)}
        return replace(self, **{**values, "findings": (*self.findings, *other.findings)})
