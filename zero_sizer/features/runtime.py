"""What the runtime allocates through PyTorch whatever the model is."""

from zero_sizer.ledger import Category, Entry
from zero_sizer.moments import AFTER_FIRST_STEP
from zero_sizer.units import MIB, DType

_HOPPER_WORKSPACE = 32 * MIB  # 4096 KiB x 8
_WORKSPACE = 8 * MIB + 128 * 1024  # 4096 KiB x 2 + 16 KiB x 8

ENTRIES = (
    Entry(
        name="cublas_workspace",
        category=Category.RUNTIME,
        about="workspace PyTorch gives cuBLAS, from the first matrix product on",
        numel=lambda p: _HOPPER_WORKSPACE if p.is_hopper_or_newer else _WORKSPACE,
        dtype=lambda p: DType.UINT8,
        live=AFTER_FIRST_STEP,
        source="pytorch v2.13 aten/src/ATen/cuda/CublasHandlePool.cpp:parseChosenWorkspaceSize",
    ),
)
