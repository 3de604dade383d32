"""The pool through which stage 3 reads parameters from NVMe, in training as in inference."""

from zero_sizer.config.workload import INFERENCE
from zero_sizer.hardware.device import Device
from zero_sizer.ledger.entries.conditions import is_zero3
from zero_sizer.ledger.entry import Category, Entry
from zero_sizer.ledger.moments import ALWAYS, FROM_FLATTEN, IN_INFERENCE
from zero_sizer.plan import sizes
from zero_sizer.plan.plan import Plan
from zero_sizer.units import DType
from zero_sizer.zero import partition


def _writes_weights(plan: Plan) -> bool:
    """True if some sub-group of weights has no flat buffer in host memory."""
    is_on_nvme = is_zero3(plan) and plan.param_device is Device.NVME and plan.task != INFERENCE
    return is_on_nvme and sizes.partition_numel(plan) > plan.param_max_in_cpu


def _not_swapped_numel(plan: Plan) -> int:
    """Elements in tensors of their own: the flat buffer takes up to ``max_in_cpu`` of them."""
    parts = [partition.tensor_partition(n, plan.dp_world_size) for n in sizes.numels(plan)]
    rows = zip(parts, sizes.is_on_nvme(plan), strict=True)
    return max(sum(part for part, is_there in rows if not is_there) - plan.param_max_in_cpu, 0)


ENTRIES = (
    Entry(
        name="param_swap_buffers",
        category=Category.OFFLOAD,
        about="pool through which parameters are read from NVMe",
        numel=sizes.nvme_buffer_bytes,
        dtype=lambda p: DType.UINT8,
        live=lambda p: IN_INFERENCE if p.task == INFERENCE else ALWAYS,
        when=lambda p: is_zero3(p) and p.param_device is Device.NVME,
        device=lambda p: Device.HOST,
        pinned=lambda p: True,
        by_deepspeed=True,
        source="runtime/swap_tensor/partitioned_param_swapper.py:80-130",
    ),
    Entry(
        name="weights_not_swapped",
        category=Category.PARAMETERS,
        about="partitions that are too small for NVMe, in host memory",
        numel=_not_swapped_numel,
        dtype=sizes.trained_dtype,
        live=ALWAYS,
        when=_writes_weights,
        device=lambda p: Device.HOST,
        pinned=lambda p: p.param_pinned,
        source="runtime/zero/partition_parameters.py:1820",
    ),
    Entry(
        name="partitioned_swap_buffer",
        category=Category.OFFLOAD,
        about="room through which updated weights go to NVMe: each rank has it for the whole of "
        "the largest sub-group, not for its partition",
        numel=lambda p: max(sizes.partitions(p), default=0) * p.dp_world_size,
        dtype=sizes.trained_dtype,
        live=FROM_FLATTEN,
        when=_writes_weights,
        device=lambda p: Device.HOST,
        pinned=lambda p: True,
        by_deepspeed=True,
        source="runtime/zero/stage3.py:1006-1018, swap_tensor/partitioned_param_swapper.py:393",
    ),
)
