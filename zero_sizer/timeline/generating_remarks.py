"""Findings about what the prediction of prefill and decode leaves out."""

from collections.abc import Iterator
from itertools import compress

from zero_sizer.activations import inference
from zero_sizer.config.workload import STATIC
from zero_sizer.findings import Direction, Finding, Severity
from zero_sizer.models import kv_cache
from zero_sizer.models.attention import FLASH
from zero_sizer.models.changes.records import AWQ, GPTQ
from zero_sizer.plan import sizes
from zero_sizer.plan.plan import Plan
from zero_sizer.timeline import generating
from zero_sizer.timeline.unpacking import whole_weight
from zero_sizer.units import DType, num_bytes
from zero_sizer.zero.partition import tensor_partition

_INDEXED = 24  # bytes of a token's place in a mask, and in what is left of it (flash_attn)


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
    yield from _small_swap_buffer(plan)
    if plan.cache == STATIC and plan.new_tokens > 1:
        yield _static_cache(plan)
    if inference.profiled(model) is not model:
        yield _of_whole_layers(plan)
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


def _small_swap_buffer(plan: Plan) -> Iterator[Finding]:
    """Every partition goes through a buffer when it is made (partition_parameters.py:1820)."""
    on_nvme = compress(plan.model.parameters, sizes.is_on_nvme(plan))
    largest = max(on_nvme, key=lambda tensor: tensor.numel, default=None)
    numel = 0 if largest is None else tensor_partition(largest.numel, plan.dp_world_size)
    if largest is not None and plan.model.exact_tensors and numel > plan.param_buffer_size:
        yield Finding(
            code="nvme-buffer-size",
            severity=Severity.ERROR,
            key="zero_optimization.offload_param.buffer_size",
            message=f'AssertionError where the model is built, "More elements {numel} than buffer '
            f"size {plan.param_buffer_size:,}\": a buffer takes a rank's part of {largest.name}",
            remedy=f"set it to {numel:,} or more",
        )


def _of_whole_layers(plan: Plan) -> Finding:
    """Of a rank's slice of layers, where no profile has fewer heads than fill the width."""
    size = generating.of_prefill(plan).num_bytes
    return Finding(
        code="activations-of-whole-layers",
        severity=Severity.NOTE,
        key="tensor_parallel",
        message="weights and cache are those of a rank, activations beside them those of whole "
        "layers: nobody traced this structure with fewer heads than fill its width",
        remedy="zero-sizer dryrun --how simulated shows them",
        direction=Direction.SAVE,
        less_bytes=size - size // plan.tp_size,
    )


def _static_cache(plan: Plan) -> Finding:
    """Attention of a static cache meets its empty places too, and concatenates nothing."""
    empty = plan.micro_batch * plan.seq_len * (plan.new_tokens - 1) * (plan.model.arch.heads or 0)
    longest = plan.seq_len + plan.new_tokens - 1
    layers = [kv_cache.static(layer, longest) for layer in kv_cache.layers_of(plan.model)]
    layer = num_bytes(plan.micro_batch * max(layers, default=0), plan.model_dtype)
    more = 0
    if plan.attention == "eager":
        more = empty * (DType.FP32.itemsize + 2 * plan.itemsize)
    elif plan.attention == FLASH:  # takes the tokens that are there out of the cache
        more = layer + _INDEXED * plan.micro_batch * longest
    return Finding(
        code="static-cache-not-traced",
        severity=Severity.NOTE,
        key="--cache",
        message="activations are those of a cache that grows: eager scores of a static one are as "
        "wide as the longest sequence, flash copies a layer without its empty places, and none is "
        "concatenated; transformers compiles its decode on a GPU, but with flash: the pools of "
        "those graphs are not counted",
        remedy="zero-sizer dryrun --how simulated shows all but those pools",
        direction=Direction.EITHER,
        num_bytes=more,
        less_bytes=layer,
    )
