"""The strategies: ZeRO stage and offload, each as the config keys that ask for it."""

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from zero_sizer.job.read import Job
from zero_sizer.plan.plan import Plan
from zero_sizer.units import round_up
from zero_sizer.util.records import dataclass
from zero_sizer.zero.partition import tensor_partition

_CPU = {"device": "cpu", "pin_memory": True}
_SWAP_BUFFER = 100_000_000  # elements, DeepSpeed's default buffer_size
_NONE_PERSIST = {"stage3_param_persistence_threshold": 0}  # a step swaps all of them in at once
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
    def optimizer_on(self) -> str:
        """Where the optimizer's states are, as the config says it; empty for the GPU."""
        return str(self.zero.get("offload_optimizer", {}).get("device", ""))

    @property
    def weights_on(self) -> str:
        """Where the weights wait, as the config says it; empty for the GPU."""
        return str(self.zero.get("offload_param", {}).get("device", ""))


def _offload(stage: int, **devices: Mapping[str, Any]) -> dict[str, Any]:
    return {"stage": stage, **{f"offload_{name}": dict(value) for name, value in devices.items()}}


def _swapped_weights(job: Job) -> dict[str, Any]:
    """Weights on NVMe, none kept in host memory, in buffers that hold a rank's part of any tensor.

    The swapper asserts the latter (partitioned_param_swapper.py:357).
    """
    return {**_NVME, "max_in_cpu": 0, "buffer_size": max(_SWAP_BUFFER, smallest_swap_buffer(job))}


def smallest_swap_buffer(job: Job) -> int:
    """Elements of a rank's part of the largest tensor, on one node."""
    largest = max((tensor.numel for tensor in job.model.parameters), default=0)
    return round_up(tensor_partition(largest, job.cluster.gpus_per_node), 2**20)


def fewest_swap_buffers(plan: Plan) -> int:
    """Buffers for optimizer states on NVMe with which a step runs; 0 where no fewer do.

    A sub-group's master weights, states and gradient are there together
    (partitioned_optimizer_swapper.py:79). Pipelined reads and writes need more of them.
    """
    needed = 2 + len(plan.optimizer.states)
    is_fewer = not plan.optimizer_pipelines and needed < plan.optimizer_buffer_count
    return needed if is_fewer else 0


def strategies(job: Job) -> tuple[Strategy, ...]:
    """Every strategy for the job's kind of node, simplest first."""
    cluster = job.cluster
    rows: tuple[tuple[str, dict[str, Any], tuple[str, ...]], ...] = (
        ("no ZeRO", {"stage": 0}, ()),
        ("ZeRO-1", {"stage": 1}, ()),
        ("ZeRO-2", {"stage": 2}, ()),
        ("ZeRO-3", {"stage": 3}, ()),
        ("ZeRO-3, hpZ", {"stage": 3, "zero_hpz_partition_size": cluster.gpus_per_node}, ()),
        ("ZeRO-3, weights on host", _offload(3, param=_CPU), ("host",)),
        ("ZeRO-1, optimizer on host", _offload(1, optimizer=_CPU), ("host",)),
        ("ZeRO-2, optimizer on host", _offload(2, optimizer=_CPU), ("host",)),
        ("ZeRO-3, optimizer on host", _offload(3, optimizer=_CPU), ("host",)),
        ("ZeRO-3, all on host", _offload(3, optimizer=_CPU, param=_CPU), ("host",)),
        (
            "ZeRO-3, optimizer on host, weights on NVMe",
            {**_offload(3, optimizer=_CPU, param=_swapped_weights(job)), **_NONE_PERSIST},
            ("host", "nvme"),
        ),
        ("ZeRO-3, optimizer on NVMe", _offload(3, optimizer=_NVME), ("host", "nvme")),
        (
            "ZeRO-3, optimizer on NVMe, weights on host",
            _offload(3, optimizer=_NVME, param=_CPU),
            ("host", "nvme"),
        ),
        (
            "ZeRO-3, all on NVMe",
            {**_offload(3, optimizer=_NVME, param=_swapped_weights(job)), **_NONE_PERSIST},
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
