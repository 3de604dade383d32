"""Memory that the runtime allocates through PyTorch whatever the model is."""

from zero_sizer.hardware.workspaces import SOURCE
from zero_sizer.ledger.entry import Category, Entry
from zero_sizer.ledger.moments import AFTER_FIRST_STEP
from zero_sizer.units import DType

ENTRIES = (
    Entry(
        name="cublas_workspace",
        category=Category.RUNTIME,
        about="workspaces PyTorch gives cuBLAS, one in forward's thread and one in backward's",
        numel=lambda p: (p.blas_workspace, p.blas_workspace),
        dtype=lambda p: DType.UINT8,
        live=AFTER_FIRST_STEP,
        source=SOURCE,
    ),
)
