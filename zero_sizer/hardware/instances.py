"""Machines of clouds by name, and what they bring to a cluster: ``data/instances.json``."""

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from zero_sizer.errors import InputError
from zero_sizer.hardware import catalog
from zero_sizer.units import parse_size
from zero_sizer.util.records import dataclass
from zero_sizer.util.spelling import did_you_mean, shown

_TABLE = Path(__file__).parent / "data" / "instances.json"
_PREFIXES = ("standard_", "ml.")  # Azure's, and SageMaker's
_BITS = 8


@dataclass(frozen=True, kw_only=True)
class Instance:
    """A machine that a cloud rents out.

    Attributes:
        name: as the cloud writes it.
        gpu: name in the GPU table.
        gpus: how many it has.
        host_memory: bytes of RAM, or None where the source does not say.
        nvme: bytes of the drives in it, or None.
        network_gb_per_s: 1e9 bytes a second of the whole machine, one direction, or None.
        sources: where this was published, title and URL.
    """

    name: str
    gpu: str
    gpus: int
    host_memory: int | None = None
    nvme: int | None = None
    network_gb_per_s: float | None = None
    sources: tuple[str, ...] = ()

    def values(self) -> dict[str, Any]:
        """Fields of a cluster that it states, and their values."""
        found = {
            "gpu": self.gpu,
            "gpus_per_node": self.gpus,
            "host_memory": self.host_memory,
            "nvme": self.nvme,
            "inter_node_gb_per_s": self.network_gb_per_s,
        }
        return {name: value for name, value in found.items() if value is not None}


def find(name: str) -> Instance:
    """The machine of that name, in capitals or not, with the cloud's prefix or without.

    A family of one machine names it: ``p4d``, ``a3-mega``.

    Raises:
        InputError: it is not in the table, or a family of several.
    """
    found = _by_spelling().get(_plain(name))
    family = [] if found is not None else family_of(name)
    if len(family) == 1:
        return family[0]
    if family:
        choices = ", ".join(instance.name for instance in sorted(family, key=_size_of))
        raise InputError(f"{shown(name)} could be any of {choices}", remedy="write which one")
    if found is None:
        elsewhere = catalog.why_not_here(_plain(name).partition(".")[0])
        if elsewhere:
            raise InputError(f"{shown(name)} is not in the table: {elsewhere}")
        near = _is_gpu(name) or did_you_mean(_plain(name), _by_spelling())
        raise InputError(
            f"no instance {shown(name)} in the table" + (f"; {near}" if near else ""),
            remedy="state what it has: --gpu, --gpus-per-node, --host-memory, --nvme",
        )
    return found


def family_of(name: str) -> list[Instance]:
    """Machines whose name is or begins so: ``g6`` is no ``g6e``, ``p5`` no ``p5en``."""
    wanted = _plain(name)
    if len(wanted) < 2:
        return []
    rests = [
        (instance, text.removeprefix(wanted))
        for text, instance in _by_spelling().items()
        if text.startswith(wanted)
    ]
    whole = [one for one, rest in rests if rest and not rest[0].isalnum()]
    return whole or [one for one, rest in rests if not rest[:1].isdigit()]


def _size_of(instance: Instance) -> tuple[int, int]:
    """GPUs, and what stands before ``xlarge``: a row is as the provider lists it."""
    size = re.search(r"\.(\d*)xlarge", instance.name)
    return instance.gpus, int(size.group(1) or 1) if size else 0


def is_known(name: str) -> bool:
    """True for a name of a machine, or of a family of them."""
    return bool(family_of(name))


def require_same(instance: Instance, stated: Mapping[str, Any]) -> None:
    """Stops where the user states a GPU, or more of them, than the machine has.

    Raises:
        InputError: so it is.
    """
    gpu, gpus = _known(stated.get("gpu")), stated.get("gpus_per_node")
    if gpu is not None and gpu != instance.gpu:
        raise InputError(
            f"{instance.name} has {instance.gpu}, not {gpu}", remedy="leave one of the two out"
        )
    if gpus is not None and gpus > instance.gpus:
        raise InputError(
            f"{instance.name} has {instance.gpus} GPUs, not {gpus}",
            remedy="leave one of the two out, or state fewer",
        )


def _is_gpu(name: str) -> str:
    gpu = _known(name)
    return "" if gpu is None else f"it is a GPU: --gpu {gpu}"


def _known(gpu: str | None) -> str | None:
    """The table's name; None for one that is unknown, which is told where it stands."""
    try:
        return None if gpu is None else catalog.find(gpu).name
    except InputError:
        return None


@cache
def all_instances() -> tuple[Instance, ...]:
    """Every row of the table, in its order."""
    table = json.loads(_TABLE.read_text(encoding="utf-8"))
    return tuple(_instance(row, table["sources"]) for row in table["instances"])


@cache
def _by_spelling() -> dict[str, Instance]:
    return {_plain(instance.name): instance for instance in all_instances()}


def _plain(name: str) -> str:
    text = name.strip().lower()
    for prefix in _PREFIXES:
        text = text.removeprefix(prefix)
    return text


def _instance(row: Mapping[str, Any], sources: Mapping[str, Mapping[str, str]]) -> Instance:
    gbit = row.get("network_gbit_per_s")
    sizes = {key: parse_size(row[key]) for key in ("host_memory", "nvme") if key in row}
    return Instance(
        name=row["name"],
        gpu=row["gpu"],
        gpus=row["gpus"],
        network_gb_per_s=None if gbit is None else gbit / _BITS,
        sources=tuple(f"{sources[key]['title']}: {sources[key]['url']}" for key in row["sources"]),
        **sizes,
    )
