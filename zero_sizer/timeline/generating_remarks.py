"""Findings about what the prediction of prefill and decode leaves out."""

from collections.abc import Iterator

from zero_sizer.findings import Direction, Finding, Severity
from zero_sizer.models.changes.records import AWQ, GPTQ
from zero_sizer.plan.plan import Plan
from zero_sizer.timeline import generating
from zero_sizer.timeline.unpacking import whole_weight


def remarks(plan: Plan) -> Iterator[Finding]:
    """Kernels that nobody traced, and models that nobody did."""
    model = plan.model
    if model.quantization is not None and model.quantization.method in (GPTQ, AWQ):
        yield Finding(
            code="kernels-of-quantization-not-modelled",
            severity=Severity.NOTE,
            key="--quantization",
            message="kernels of GPTQ and AWQ may unpack a whole weight for a long prompt",
            remedy="the interval has the largest one",
            direction=Direction.COST,
            num_bytes=whole_weight(model),
        )
    if not generating.is_traced(plan):
        size = generating.of_prefill(plan).num_bytes
        yield Finding(
            code="inference-by-closed-form",
            severity=Severity.NOTE,
            key="--model",
            message="nobody traced a model of this structure: activations and cache are a closed "
            "form's: half of what there is, twice it, or a little more",
            remedy="zero-sizer dryrun --how simulated shows them",
            direction=Direction.EITHER,
            num_bytes=size + size // 4,  # 0.49 to 1.15 of the profile in 330 draws
            less_bytes=size // 2,
        )
