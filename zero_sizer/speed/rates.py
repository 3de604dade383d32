"""Rates of the hardware: peaks times measured shares, from ``data/rates.json`` or the job."""

import json
from collections.abc import Mapping
from enum import IntEnum
from functools import cache, lru_cache
from math import inf
from pathlib import Path
from typing import Any

from zero_sizer.hardware.cluster import Cluster, Gpu
from zero_sizer.units import DType
from zero_sizer.util.records import dataclass

_TABLE = Path(__file__).parent / "data" / "rates.json"
_PEAK_NAMES = {DType.BF16: "bf16", DType.FP16: "fp16", DType.FP32: "fp32", DType.FP8: "fp8"}


class Case(IntEnum):
    """Which end of the interval; the value is its place in the table's ``training`` lists."""

    LOW = 0  # least time: the fastest rates
    EXPECTED = 1
    HIGH = 2


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """A way in which NCCL passes data around a ring.

    Attributes:
        base: seconds of any collective.
        hop: seconds to the next GPU of the node.
        network_hop: seconds to the next node.
        share: of the links' rate.
        most: bytes/s it never exceeds.
    """

    base: float
    hop: float
    network_hop: float
    share: float
    most: float


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Rates of one case; per GPU unless it says otherwise, links in one direction.

    Attributes:
        matmul: FLOP/s of large matrix products.
        attention: FLOP/s of a fused attention kernel's forward.
        eager_attention: FLOP/s of attention as plain matrix products.
        memory: bytes/s of device memory.
        elementwise_passes: memory traffic over what fused kernels move.
        eager_share: of what eager norms and rotation move beyond fused ones.
        node_link: bytes/s to the other GPUs of the node.
        network: bytes/s of one node to the others.
        hidden: share of communication that overlaps with compute.
        protocols: of collectives; the fastest for a message is taken.
        pcie: bytes/s to the host.
        host_memory: bytes/s of one node's memory.
        nvme: bytes/s of one node's drives.
    """

    matmul: float
    attention: float
    eager_attention: float
    memory: float
    elementwise_passes: float
    eager_share: float
    node_link: float
    network: float
    hidden: float
    protocols: tuple[Protocol, ...]
    pcie: float
    host_memory: float
    nvme: float


@dataclass(frozen=True, kw_only=True)
class Rate:
    """One rate for the reader.

    Attributes:
        name: as a job file's ``cluster:`` section spells it, or the table's name.
        values: low, expected and high rate, in ``unit``.
        origin: the user's file and line, or the sources of the table.
    """

    name: str
    values: tuple[float, float, float]
    unit: str
    origin: str


@cache
def table() -> dict[str, Any]:
    """The table as JSON."""
    found: dict[str, Any] = json.loads(_TABLE.read_text(encoding="utf-8"))
    return found


def by_prefix(rows: Mapping[str, float], name: str) -> float:
    """The row of the longest prefix of ``name``; the empty prefix is everyone's."""
    return rows[max((prefix for prefix in rows if name.startswith(prefix)), key=len)]


def peak_flops(gpu: Gpu, dtype: DType) -> float:
    """Peak FLOP/s for ``dtype``; a dtype without tensor cores runs as fp32."""
    found = gpu.peak_tflops.get(_PEAK_NAMES.get(dtype, "fp32"), gpu.peak_tflops.get("fp32", 0.0))
    return found * 1e12


def rates_of(
    cluster: Cluster, dtype: DType, case: Case = Case.EXPECTED, kernel: str | None = None
) -> Rates | None:
    """The rates of a cluster; None without a GPU.

    Args:
        cluster: with its GPU, and the rates that the user states.
        dtype: of matrix products.
        case: end of the interval.
        kernel: generation of FlashAttention; None: the one that today's packages run.
    """
    if cluster.gpu is None:
        return None
    overrides = tuple(sorted(cluster.rates.items()))
    return _rates(cluster.gpu.name, dtype, case, overrides, kernel)


@lru_cache(maxsize=64)
def _rates(
    name: str,
    dtype: DType,
    case: Case,
    overrides: tuple[tuple[str, float], ...],
    kernel: str | None,
) -> Rates:
    from zero_sizer.hardware import catalog

    gpu, stated = catalog.find(name), dict(overrides)

    def share(row: str) -> float:
        """Share of a peak: measured by a benchmark, times what training keeps of it."""
        entry = table()[row]
        kinds = entry.get("kernels")
        kept: float = (entry["training"] if kinds is None else _of_kernel(kinds, kernel, gpu))[case]
        return kept * by_prefix(entry["measured"], name) if "measured" in entry else kept

    def link(key: str, row: str, peak: float | None = None) -> float:
        """Bytes/s: what the user stated is taken as it is."""
        if key in stated:
            return stated[key] * 1e9
        top = by_prefix(table()[row]["gb_per_s"], name) if peak is None else peak
        return share(row) * top * 1e9

    peak = peak_flops(gpu, dtype)

    def product(key: str, row: str) -> float:
        """FLOP/s: what the user stated is taken as it is."""
        return stated[key] * 1e12 if key in stated else share(row) * peak

    matmul = product("matmul_tflops", "matmul")
    attention = product("attention_tflops", "attention")
    return Rates(
        matmul=matmul,
        attention=attention if "attention_tflops" in stated else min(attention, matmul),
        eager_attention=matmul,
        memory=share("memory") * gpu.memory_gb_per_s * 1e9,
        elementwise_passes=share("elementwise_passes"),
        eager_share=share("eager_share"),
        node_link=link("intra_node_gb_per_s", "node_link", gpu.intra_node_gb_per_s),
        network=link("inter_node_gb_per_s", "network"),
        hidden=share("hidden"),
        protocols=_protocols(gpu),
        pcie=link("pcie_gb_per_s", "pcie", gpu.pcie_gb_per_s),
        host_memory=link("host_memory_gb_per_s", "host_memory"),
        nvme=link("nvme_gb_per_s", "nvme"),
    )


def _of_kernel(
    kinds: Mapping[str, Mapping[str, list[float]]], kernel: str | None, gpu: Gpu
) -> list[float]:
    """Shares of FlashAttention-2's benchmark that a generation reaches, by compute capability."""
    rows, capability = kinds[kernel or ""], gpu.compute_capability
    return rows.get("other" if capability is None else str(capability[0]), rows[""])


def _protocols(gpu: Gpu) -> tuple[Protocol, ...]:
    """NCCL's protocols on the links of a GPU."""
    hop = "pcie_us" if "PCIe" in gpu.intra_node_link else "nvlink_us"
    return tuple(
        Protocol(
            base=row["base_us"] * 1e-6,
            hop=row[hop] * 1e-6,
            network_hop=row["network_us"] * 1e-6,
            share=row["share"],
            most=row.get("most_gb_per_s", inf) * 1e9,
        )
        for row in table()["protocols"]["rows"]
    )


# field of Rates -> key in a job file (or ""), row of the table, divisor and unit for the reader
_SHOWN = (
    ("matmul", "matmul_tflops", "matmul", 1e12, "TFLOP/s"),
    ("attention", "attention_tflops", "attention", 1e12, "TFLOP/s"),
    ("memory", "", "memory", 1e9, "GB/s"),
    ("elementwise_passes", "", "elementwise_passes", 1.0, "x"),
    ("eager_share", "", "eager_share", 1.0, "of 1"),
    ("node_link", "intra_node_gb_per_s", "node_link", 1e9, "GB/s"),
    ("network", "inter_node_gb_per_s", "network", 1e9, "GB/s a node"),
    ("hidden", "", "hidden", 1.0, "of 1"),
    ("pcie", "pcie_gb_per_s", "pcie", 1e9, "GB/s"),
    ("host_memory", "host_memory_gb_per_s", "host_memory", 1e9, "GB/s a node"),
    ("nvme", "nvme_gb_per_s", "nvme", 1e9, "GB/s a node"),
)


def explain(cluster: Cluster, dtype: DType, kernel: str | None = None) -> tuple[Rate, ...]:
    """Every rate with its interval and where it comes from (arguments: ``rates_of``)."""
    cases = [rates_of(cluster, dtype, case, kernel) for case in Case]
    return tuple(
        Rate(
            name=key or row,
            values=tuple(getattr(case, field) / divisor for case in cases),
            unit=unit,
            origin=cluster.origins.get(key) or _sources(row),
        )
        for field, key, row, divisor, unit in _SHOWN
        if all(cases)
    )


def _sources(row: str) -> str:
    known = table()["sources"]
    return "; ".join(known[source]["title"] for source in table()[row]["sources"])
