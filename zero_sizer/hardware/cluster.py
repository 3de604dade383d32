"""The machines a job runs on."""

from collections.abc import Mapping
from dataclasses import field, replace
from typing import TYPE_CHECKING, Self

from zero_sizer.parallel import ParallelDims
from zero_sizer.util.records import dataclass

if TYPE_CHECKING:
    from zero_sizer.hardware.measured import ClusterProfile


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One row of the GPU table (``hardware/data/gpus.json``); every figure has its source there.

    Attributes:
        name: vendor-short and memory, e.g. ``h100-80gb``.
        label: what the vendor calls it.
        marketing_bytes: the memory on the box (decimal or binary as the vendor counts).
        visible_bytes: ``torch.cuda.get_device_properties(0).total_memory``: what PyTorch sees. It
            moves by some 100 MiB with the driver: this is the lowest published value.
        visible_high_bytes: the highest published value (full card, ECC as shipped).
        visible_note: not empty when nobody published what PyTorch sees, so that ``visible_bytes``
            is only the memory on the box: it must reach the user.
        context_bytes: memory one process' CUDA context takes (low, high).
        context_note: how ``context_bytes`` is known.
        peak_tflops: dense peak by dtype name (``bf16``, ``fp16``, ``tf32``, ``fp32``, ``fp8``); no
            sparsity, tensor cores where there are some (``fp32``: without). A dtype that is
            missing runs without tensor cores.
        memory_gb_per_s: device memory bandwidth, 1e9 bytes a second.
        intra_node_gb_per_s: one direction, per GPU, to its peers in the node.
        intra_node_link: the link that figure is for, e.g. ``NVLink 4`` or ``PCIe 4.0 x16``.
        pcie_gb_per_s: one direction, per GPU, to the host.
        compute_capability: NVIDIA's number of the generation, e.g. (8, 0); None for other vendors.
        gfx: AMD's name of the architecture, e.g. ``gfx942``; empty for other vendors.
        board_watts: the most that the maker rates the card for; None where it is not known.
        board_watts_source: where that was published.
        sources: where the figures were published, title and URL.
    """

    name: str
    label: str = ""
    marketing_bytes: int
    visible_bytes: int
    visible_high_bytes: int = 0
    visible_note: str = ""
    context_bytes: tuple[int, int]
    context_note: str = ""
    peak_tflops: dict[str, float]
    memory_gb_per_s: float
    intra_node_gb_per_s: float
    intra_node_link: str = ""
    pcie_gb_per_s: float
    compute_capability: tuple[int, int] | None = None
    gfx: str = ""
    board_watts: int | None = None
    board_watts_source: str = ""
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Nodes of equal GPUs.

    Attributes:
        nodes: number of nodes.
        gpus_per_node: ranks on each node; on the fullest node where ``slots`` differ.
        slots: ranks of each node in rank order, when a hostfile gives its nodes unequal slots;
            empty when every node holds ``gpus_per_node``.
        gpu: the GPU, or None when none was named: no capacity is then assumed.
        gpu_memory: bytes a rank may use; the GPU's ``visible_bytes`` unless overridden.
        host_memory: RAM of a node in bytes, or None when not stated.
        nvme: NVMe of a node in bytes, or None when not stated.
        rates: what the user measured or knows of the hardware's speed, by key of a job file's
            ``cluster:`` section (``inter_node_gb_per_s``, ...).
        measured: what recordings of runs measured of this cluster; None where nobody says.
        origins: field name -> where its value comes from (flag, file and line, table row).
    """

    nodes: int = 1
    gpus_per_node: int = 1
    slots: tuple[int, ...] = ()
    gpu: Gpu | None = None
    gpu_memory: int | None = None
    host_memory: int | None = None
    nvme: int | None = None
    rates: Mapping[str, float] = field(default_factory=dict)
    measured: "ClusterProfile | None" = None
    origins: dict[str, str]

    def of(self, ranks: ParallelDims) -> Self:
        """Nodes of the same kind that hold these ranks."""
        return replace(self, nodes=ranks.nodes, gpus_per_node=ranks.ranks_per_node, slots=())

    @property
    def world_size(self) -> int:
        """Ranks in the job: one per GPU."""
        return sum(self.slots) if self.slots else self.nodes * self.gpus_per_node

    @property
    def has_equal_nodes(self) -> bool:
        """True if every node holds the same number of ranks."""
        return not self.slots

    @property
    def layout(self) -> str:
        """Nodes and ranks for a reader: ``4 x 8``, or ``8 + 8 + 4`` where nodes differ."""
        if self.has_equal_nodes:
            return f"{self.nodes} x {self.gpus_per_node}"
        if len(self.slots) <= 8:
            return " + ".join(map(str, self.slots))
        return f"{self.nodes} nodes of {min(self.slots)} to {self.gpus_per_node}, {self.world_size}"
