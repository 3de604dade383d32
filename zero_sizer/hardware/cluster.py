"""The machines a job runs on."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One row of the GPU table (``hardware/data/gpus.json``); every figure has its source there.

    Attributes:
        name: vendor-short and memory, e.g. ``h100-80gb``.
        marketing_bytes: the memory on the box (decimal or binary as the vendor counts).
        visible_bytes: ``torch.cuda.get_device_properties(0).total_memory``: what PyTorch sees.
        context_bytes: memory one process' CUDA context takes (low, high).
        peak_tflops: dense peak by dtype name (``bf16``, ``fp16``, ``tf32``, ``fp32``); no sparsity.
        memory_gb_per_s: device memory bandwidth, 1e9 bytes a second.
        intra_node_gb_per_s: one direction, per GPU, to its peers in the node.
        pcie_gb_per_s: one direction, per GPU, to the host.
    """

    name: str
    marketing_bytes: int
    visible_bytes: int
    context_bytes: tuple[int, int]
    peak_tflops: dict[str, float]
    memory_gb_per_s: float
    intra_node_gb_per_s: float
    pcie_gb_per_s: float
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Nodes of equal GPUs.

    Attributes:
        nodes: number of nodes.
        gpus_per_node: ranks on each node.
        gpu: the GPU, or None when none was named: no capacity is then assumed.
        gpu_memory: bytes a rank may use; the GPU's ``visible_bytes`` unless overridden.
        host_memory: RAM of a node in bytes, or None when not stated.
        nvme: NVMe of a node in bytes, or None when not stated.
        origins: field name -> where its value comes from (flag, file and line, table row).
    """

    nodes: int = 1
    gpus_per_node: int = 1
    gpu: Gpu | None = None
    gpu_memory: int | None = None
    host_memory: int | None = None
    nvme: int | None = None
    origins: dict[str, str]

    @property
    def world_size(self) -> int:
        """Ranks in the job: one per GPU."""
        return self.nodes * self.gpus_per_node
