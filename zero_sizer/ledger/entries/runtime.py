"""Memory that the runtime allocates through PyTorch whatever the model is."""

from zero_sizer.hardware.workspaces import SOURCE
from zero_sizer.ledger.entry import Category, Entry
from zero_sizer.ledger.moments import AFTER_FIRST_STEP
from zero_sizer.plan.plan import Plan
from zero_sizer.units import DType, num_bytes


def _batch(plan: Plan) -> tuple[int, ...]:
    """Bytes of each input of a micro batch."""
    if plan.feed is None:
        return ()
    return tuple(
        num_bytes(
            given.num_elements(plan.micro_batch, plan.seq_len),
            DType.INT64 if given.is_integer else plan.model_dtype,
        )
        for given in plan.feed.inputs
    )


ENTRIES = (
    Entry(
        name="input_batch",
        category=Category.RUNTIME,
        about="pixels, frames, latents and token ids of a micro batch, until the next one",
        numel=_batch,
        dtype=lambda p: DType.UINT8,  # counted in bytes: several dtypes together
        live=AFTER_FIRST_STEP,
        when=lambda p: p.feed is not None,
        source="transformers trainer.py, _prepare_input: cast to the engine's dtype",
    ),
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
