"""The strategies: ZeRO stage and offload, each as the config keys that ask for it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from zero_sizer.job.read import Job
from zero_sizer.units import ceil_div, round_up

_CPU = {"device": "cpu", "pin_memory": True}
_SWAP_BUFFER = 100_000_000  # elements, DeepSpeed's default buffer_size
_NVME = {"device": "nvme", "nvme_path": "/local_nvme", "pin_memory": True}


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """One way to spread a job's memory.

    Attributes:
        name: what to call it.
        zero: keys of ``zero_optimization`` that make it.
        simplicity: 0 is simplest; among equally fast plans the simpler wins.
        needs_nodes: nodes below which it says nothing new.
        offloads: devices beyond the GPU whose size must be known.
    """

    name: str
    zero: Mapping[str, Any]
    simplicity: int
    needs_nodes: int = 1
    offloads: tuple[str, ...] = field(default=())

    @property
    def stage(self) -> int:
        """ZeRO stage."""
        stage: int = self.zero["stage"]
        return stage

    @property
    def swaps_weights(self) -> bool:
        """Whether weights live on NVMe."""
        return bool(self.zero.get("offload_param", {}).get("device") == _NVME["device"])


def _offload(stage: int, **devices: Mapping[str, Any]) -> dict[str, Any]:
    return {"stage": stage, **{f"offload_{name}": dict(value) for name, value in devices.items()}}


def _swapped_weights(job: Job) -> dict[str, Any]:
    """Weights on NVMe, none kept in host memory, in buffers that hold a rank's part of any tensor.

    The swapper asserts the latter (partitioned_param_swapper.py:357).
    """
    largest = max((tensor.numel for tensor in job.model.parameters), default=0)
    part = round_up(ceil_div(largest, job.cluster.gpus_per_node), 2**20)
    return {**_NVME, "max_in_cpu": 0, "buffer_size": max(_SWAP_BUFFER, part)}


def strategies(job: Job) -> tuple[Strategy, ...]:
    """Every strategy for the job's kind of node, simplest first."""
    cluster = job.cluster
    rows: tuple[tuple[str, dict[str, Any], tuple[str, ...]], ...] = (
        ("no ZeRO", {"stage": 0}, ()),
        ("ZeRO-1", {"stage": 1}, ()),
        ("ZeRO-2", {"stage": 2}, ()),
        ("ZeRO-3", {"stage": 3}, ()),
        ("ZeRO-3, hpZ", {"stage": 3, "zero_hpz_partition_size": cluster.gpus_per_node}, ()),
        ("ZeRO-1, optimizer on host", _offload(1, optimizer=_CPU), ("host",)),
        ("ZeRO-2, optimizer on host", _offload(2, optimizer=_CPU), ("host",)),
        ("ZeRO-3, optimizer on host", _offload(3, optimizer=_CPU), ("host",)),
        ("ZeRO-3, all on host", _offload(3, optimizer=_CPU, param=_CPU), ("host",)),
        ("ZeRO-3, optimizer on NVMe", _offload(3, optimizer=_NVME), ("host", "nvme")),
        (
            "ZeRO-3, optimizer on NVMe, weights on host",
            _offload(3, optimizer=_NVME, param=_CPU),
            ("host", "nvme"),
        ),
        (
            "ZeRO-3, all on NVMe",
            {
                **_offload(3, optimizer=_NVME, param=_swapped_weights(job)),
                "stage3_param_persistence_threshold": 0,  # a step swaps all of them in at once
            },
            ("host", "nvme"),
        ),
    )
    found = []
    for place, (name, zero, offloads) in enumerate(rows):
        is_hpz = "zero_hpz_partition_size" in zero
        if is_hpz and cluster.gpus_per_node < 2:
            continue
        if "nvme" in offloads and cluster.nvme is None:
            continue
        strategy = Strategy(
            name=name,
            zero=zero,
            simplicity=place,
            needs_nodes=2 if is_hpz else 1,
            offloads=offloads,
        )
        found.append(strategy)
    return tuple(found)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Buffer sizes, in elements, as config keys under ``zero_optimization``.

    Attributes:
        keys: what the config says.
        values: what the plan's fields become.
    """

    keys: Mapping[str, int]
    values: Mapping[str, int]


_FIELDS = {
    "reduce_bucket_size": "reduce_bucket_size",
    "stage3_prefetch_bucket_size": "prefetch_bucket_size",
    "stage3_max_live_parameters": "max_live_parameters",
    "stage3_max_reuse_distance": "max_reuse_distance",
}
_BUCKETS = (500_000_000, 100_000_000, 20_000_000)  # the first is DeepSpeed's default
_WINDOWS = (
    (50_000_000, 1_000_000_000, 1_000_000_000),  # DeepSpeed's defaults
    (50_000_000, 100_000_000, 0),  # nothing kept for backward
)
# A swapped weight holds one of few buffers as long as it is gathered, and when none is left the
# swapper gives up (partitioned_param_swapper.py:312): one module's weights at a time.
_SWAPPED_WINDOWS = ((0, 100_000_000, 0),)


def settings_of(strategy: Strategy) -> tuple[Setting, ...]:
    """Buffer sizes worth trying, DeepSpeed's defaults first."""
    if strategy.stage == 0:
        return (_setting({}),)
    if strategy.stage < 3:
        return tuple(_setting({"reduce_bucket_size": bucket}) for bucket in _BUCKETS)
    names = tuple(_FIELDS)
    return tuple(
        _setting(dict(zip(names, (bucket, *window), strict=True)))
        for window in (_SWAPPED_WINDOWS if strategy.swaps_weights else _WINDOWS)
        for bucket in _BUCKETS
    )


def _setting(keys: dict[str, int]) -> Setting:
    return Setting(keys=keys, values={_FIELDS[name]: value for name, value in keys.items()})
