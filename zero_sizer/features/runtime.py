"""What the runtime allocates through PyTorch whatever the model is."""

from zero_sizer.hardware.workspaces import SOURCE
from zero_sizer.ledger import Category, Entry
from zero_sizer.moments import AFTER_FIRST_STEP
from zero_sizer.units import DType

ENTRIES = (
    Entry(
        name="cublas_workspace",
        category=Category.RUNTIME,
        about="workspace PyTorch gives cuBLAS, from the first matrix product on",
        numel=lambda p: p.blas_workspace,
        dtype=lambda p: DType.UINT8,
        live=AFTER_FIRST_STEP,
        source=SOURCE,
    ),
)
