"""From what the user stated about the machines to a ``Cluster``."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from zero_sizer.errors import InputError
from zero_sizer.hardware import catalog, hostfile, instances
from zero_sizer.hardware.cluster import Cluster, Gpu
from zero_sizer.util.records import dataclass

if TYPE_CHECKING:
    from zero_sizer.hardware.measured import ClusterProfile

DEFAULT = "default: nothing stated"
_MOST_RANKS = 2**20
RATES = (
    "matmul_tflops",
    "attention_tflops",
    "intra_node_gb_per_s",
    "inter_node_gb_per_s",
    "pcie_gb_per_s",
    "host_memory_gb_per_s",
    "nvme_gb_per_s",
)


@dataclass(frozen=True, slots=True)
class Stated:
    """A value the user gave and where: ``--nodes`` or ``job.yaml:7``."""

    value: Any
    origin: str


def assemble(stated: Mapping[str, Stated]) -> Cluster:
    """The cluster that the stated fields mean.

    Args:
        stated: any of ``nodes``, ``gpus_per_node``, ``gpu``, ``gpu_memory``, ``host_memory``,
            ``nvme`` (already of the right type, sizes in bytes), ``instance`` (a cloud's name),
            ``hostfile`` and ``cluster_profile`` (paths) and ``RATES`` (numbers above 0).

    Raises:
        InputError: unknown GPU or instance, or one that has other GPUs, bad hostfile, bad profile
            or one of another GPU, or nodes without the number of GPUs on each, or more than a
            million GPUs.
    """
    brought = _of_instance(stated)
    network = brought.pop("inter_node_gb_per_s", None)
    stated = {**brought, **stated}
    origins = {
        name: item.origin for name, item in stated.items() if name not in ("hostfile", "instance")
    }
    slots = _slots(stated, origins)
    if sum(slots) > _MOST_RANKS:
        where = stated["nodes"].origin if "nodes" in stated else ""
        raise InputError(
            f"{sum(slots):,} GPUs are more than any cluster has",
            remedy=f"at most {_MOST_RANKS:,}",
            where=where,
        )
    measured = _measured(stated)
    if measured is not None and measured.gpu and "gpu" not in stated:
        stated = {**stated, "gpu": Stated(measured.gpu, measured.source)}
    gpu, gpu_memory = _gpu(stated, origins)
    _require_same_gpu(measured, gpu, stated)
    for name in ("gpu", "gpu_memory", "host_memory", "nvme"):
        origins.setdefault(name, "not stated")
    return Cluster(
        nodes=len(slots),
        gpus_per_node=max(slots),
        slots=slots if len(set(slots)) > 1 else (),
        gpu=gpu,
        gpu_memory=gpu_memory,
        host_memory=_value(stated, "host_memory"),
        nvme=_value(stated, "nvme"),
        rates=_rates(stated, measured, network, origins),
        measured=measured,
        origins=origins,
    )


def _of_instance(stated: Mapping[str, Stated]) -> dict[str, Stated]:
    """What the machine that is named has; a hostfile says itself how many GPUs are used.

    Raises:
        InputError: unknown, or other GPUs than are stated beside it.
    """
    if "instance" not in stated:
        return {}
    name, origin = stated["instance"].value, stated["instance"].origin
    try:
        instance = instances.find(name)
        instances.require_same(instance, {key: item.value for key, item in stated.items()})
    except InputError as error:
        raise InputError(error.message, remedy=error.remedy, where=origin) from None
    values = instance.values()
    if "hostfile" in stated:
        del values["gpus_per_node"]
    return {key: Stated(value, f"{origin} {instance.name}") for key, value in values.items()}


def _measured(stated: Mapping[str, Stated]) -> "ClusterProfile | None":
    """The cluster profile that is named."""
    if "cluster_profile" not in stated:
        return None
    from zero_sizer.hardware import measured

    return measured.read(str(stated["cluster_profile"].value), RATES)


def _require_same_gpu(
    measured: "ClusterProfile | None", gpu: Gpu | None, stated: Mapping[str, Stated]
) -> None:
    """Stops where the profile is of another GPU than the job's.

    Raises:
        InputError: it is.
    """
    if measured is not None and measured.gpu and gpu is not None and gpu.name != measured.gpu:
        raise InputError(
            f"{measured.source} was measured on {measured.gpu}, not on {gpu.name}",
            remedy="leave it out, or calibrate one on that GPU",
            where=stated["cluster_profile"].origin,
        )


def _rates(
    stated: Mapping[str, Stated],
    measured: "ClusterProfile | None",
    network: Stated | None,
    origins: dict[str, str],
) -> dict[str, float]:
    """What the user knows of the hardware's speed, what was measured, what the machine has."""
    found = {name: float(stated[name].value) for name in RATES if name in stated}
    for name, rate in (measured.rates if measured is not None else {}).items():
        if name not in found:
            found[name] = rate.value
            origins[name] = measured.origin if measured is not None else ""
    if network is not None and "inter_node_gb_per_s" not in found:
        found["inter_node_gb_per_s"] = network.value
        origins["inter_node_gb_per_s"] = network.origin
    return found


def _value(stated: Mapping[str, Stated], name: str) -> Any:
    return stated[name].value if name in stated else None


def _slots(stated: Mapping[str, Stated], origins: dict[str, str]) -> tuple[int, ...]:
    """Ranks on each node."""
    if "hostfile" in stated:
        return _hostfile_slots(stated, origins)
    nodes = stated.get("nodes")
    gpus = stated.get("gpus_per_node")
    if nodes is not None and nodes.value > 1 and gpus is None:
        raise InputError(
            f"{nodes.value} nodes, but not how many GPUs each has",
            remedy="add --gpus-per-node, or gpus_per_node under cluster:",
            where=nodes.origin,
        )
    origins.setdefault("nodes", DEFAULT)
    origins.setdefault("gpus_per_node", DEFAULT)
    return (gpus.value if gpus else 1,) * (nodes.value if nodes else 1)


def _hostfile_slots(stated: Mapping[str, Stated], origins: dict[str, str]) -> tuple[int, ...]:
    """The first ``nodes`` hosts, ``gpus_per_node`` slots of each: the launcher's own flags."""
    path = str(stated["hostfile"].value)
    slots = list(hostfile.read(path).values())
    origins.setdefault("nodes", f"hostfile {path}")
    origins.setdefault("gpus_per_node", f"hostfile {path}")
    nodes, gpus = stated.get("nodes"), stated.get("gpus_per_node")
    if nodes is not None:
        if nodes.value > len(slots):
            raise InputError(
                f"{nodes.value} nodes, but {path} lists {len(slots)}",
                remedy="list more hosts, or leave the hostfile out",
                where=nodes.origin,
            )
        slots = slots[: nodes.value]
    if gpus is not None:
        if gpus.value > min(slots):
            raise InputError(
                f"{gpus.value} GPUs per node, but {path} has a host with {min(slots)} slots",
                remedy="change its slots, or leave the hostfile out",
                where=gpus.origin,
            )
        slots = [gpus.value] * len(slots)
    return tuple(slots)


def _gpu(stated: Mapping[str, Stated], origins: dict[str, str]) -> tuple[Gpu | None, int | None]:
    """The table row, and the bytes a rank may use."""
    gpu = None
    if "gpu" in stated:
        name, origin = stated["gpu"].value, stated["gpu"].origin
        try:
            gpu = catalog.find(name)
        except InputError as error:
            is_machine = instances.is_known(name)
            remedy = f"it is a cloud's machine: --instance {name}" if is_machine else error.remedy
            raise InputError(error.message, remedy=remedy, where=origin) from None
        origins["gpu"] = origin
    if "gpu_memory" in stated:
        return gpu, int(stated["gpu_memory"].value)
    if gpu is None:
        return None, None
    note = f" ({gpu.visible_note})" if gpu.visible_note else ""
    origins["gpu_memory"] = f"GPU table: {gpu.name}{note}"
    return gpu, gpu.visible_bytes
