"""The pool through which stage 3 reads parameters from NVMe, in training as in inference."""

from zero_sizer.config.workload import INFERENCE
from zero_sizer.hardware.device import Device
from zero_sizer.ledger.entries.conditions import is_zero3
from zero_sizer.ledger.entry import Category, Entry
from zero_sizer.ledger.moments import ALWAYS, IN_INFERENCE
from zero_sizer.plan import sizes
from zero_sizer.units import DType

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
)
