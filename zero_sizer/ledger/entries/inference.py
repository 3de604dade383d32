"""Inference: weights as they are stored, the cache, prefill and decode."""

from zero_sizer.activations import inference
from zero_sizer.config.workload import STATIC
from zero_sizer.hardware.device import Device
from zero_sizer.hardware.workspaces import SOURCE
from zero_sizer.ledger.entries.conditions import parked_on
from zero_sizer.ledger.entry import Category, Entry
from zero_sizer.ledger.moments import IN_INFERENCE, RUNS, Moment
from zero_sizer.models import kv_cache
from zero_sizer.models.spec import ModelSpec
from zero_sizer.plan import sizes
from zero_sizer.plan.plan import Plan
from zero_sizer.timeline import generating
from zero_sizer.units import DType, num_bytes
from zero_sizer.zero.partition import tensor_partition

_STATISTICS = "QuantState"
_BITSANDBYTES = "bitsandbytes 0.50.2 functional.py:884, nn/modules.py:719"
_CACHE = "transformers 5.23 cache_utils.py:104,196,403,510"
_FORWARD = "traced from transformers' own generate() and forward"


def _weight_bytes(plan: Plan, model: ModelSpec | None = None) -> int:
    return sum(
        num_bytes(tensor.numel, tensor.dtype or plan.model_dtype)
        for tensor in (model or plan.model).parameters
        if tensor.unpacked is None
    )


def _code_bytes(plan: Plan) -> int:
    return sum(
        num_bytes(tensor.numel, tensor.dtype or DType.UINT8)
        for tensor in plan.model.parameters
        if tensor.unpacked is not None
    )


def _buffer_bytes(plan: Plan, *, statistics: bool) -> int:
    return sum(
        num_bytes(buffer.numel, buffer.dtype or plan.model_dtype)
        for buffer in plan.model.buffers
        if (buffer.module_type == _STATISTICS) is statistics
    )


def _highest(plan: Plan, moment: Moment) -> generating.Highest:
    is_prefill = moment is Moment.PREFILL
    return generating.of_prefill(plan) if is_prefill else generating.of_decode(plan)


def _is_partitioned(plan: Plan) -> bool:
    return plan.stage == 3


def _from_partitioning(plan: Plan) -> frozenset[Moment]:
    return IN_INFERENCE if plan.zero_init else RUNS | {Moment.READY}


def _partitions(plan: Plan, *, on_nvme: bool = False) -> tuple[int, ...]:
    parts = zip(sizes.numels(plan), sizes.dtypes(plan), sizes.is_on_nvme(plan), strict=True)
    ranks = plan.dp_world_size
    return tuple(
        [
            num_bytes(tensor_partition(n, ranks), dtype)
            for n, dtype, swapped in parts
            if swapped is on_nvme
        ]
    )


def _cached(plan: Plan, moment: Moment) -> int:
    """Elements of all layers and sequences; of a growing cache what is there at the peak.

    The highest point of a prefill may come before the blocks, which fill the cache.
    """
    layers = kv_cache.layers_of(plan.model)
    longest = plan.seq_len + max(plan.new_tokens - 1, 0)
    if plan.cache == STATIC:
        per_sequence = sum(kv_cache.static(layer, longest) for layer in layers)
    elif moment is Moment.PREFILL:
        per_sequence = sum(kv_cache.after_prefill(layer, plan.seq_len) for layer in layers)
    else:
        per_sequence = sum(kv_cache.while_decoding(layer, longest) for layer in layers)
    if plan.cache == STATIC:
        return plan.micro_batch * per_sequence
    at_peak = _highest(plan, moment).num_bytes // plan.model_dtype.itemsize
    return min(plan.micro_batch * per_sequence, at_peak)


def _cache_entry(moment: Moment) -> Entry:
    return Entry(
        name=f"kv_cache_in_{moment.phase.value}",
        category=Category.ACTIVATIONS,
        about="keys and values of every token so far"
        if moment is Moment.PREFILL
        else "keys and values of every token but the last",
        numel=lambda p: _cached(p, moment),
        dtype=lambda p: p.model_dtype,
        live=frozenset({moment}),
        when=lambda p: moment is Moment.PREFILL or p.new_tokens > 1,
        source=_CACHE,
    )


def _activations(moment: Moment) -> Entry:
    def num_bytes_of(plan: Plan) -> int:
        point = _highest(plan, moment)
        cached = num_bytes(_cached_dynamically(plan, moment), plan.model_dtype)
        return max(point.num_bytes - cached, 0)

    return Entry(
        name=f"activations_in_{moment.phase.value}",
        category=Category.ACTIVATIONS,
        about="what the model is computing at the highest point, logits included",
        numel=num_bytes_of,
        dtype=lambda p: DType.UINT8,  # counted in bytes: several dtypes together
        live=frozenset({moment}),
        when=lambda p: moment is Moment.PREFILL or p.new_tokens > 1,
        source=_FORWARD,
    )


def _cached_dynamically(plan: Plan, moment: Moment) -> int:
    """What the profile, which was traced with a cache that grows, has of it."""
    layers = kv_cache.layers_of(inference.profiled(plan.model))
    if moment is Moment.PREFILL:
        per_sequence = sum(kv_cache.after_prefill(layer, plan.seq_len) for layer in layers)
    else:
        tokens = plan.seq_len + plan.new_tokens - 1
        per_sequence = sum(kv_cache.while_decoding(layer, tokens) for layer in layers)
    return plan.micro_batch * per_sequence


def _gathered(moment: Moment) -> Entry:
    return Entry(
        name=f"gathered_parameters_in_{moment.phase.value}",
        category=Category.PARAMETERS,
        about="parameters in use, kept for reuse or prefetched, with their gather buffers",
        numel=lambda p: _highest(p, moment).gathered,
        dtype=lambda p: DType.UINT8,  # counted in bytes: several dtypes together
        live=frozenset({moment}),
        when=lambda p: _is_partitioned(p) and (moment is Moment.PREFILL or p.new_tokens > 1),
        source="runtime/zero/partitioned_param_coordinator.py:400-664",
    )


def _persistent(moment: Moment) -> Entry:
    return Entry(
        name=f"persistent_parameters_in_{moment.phase.value}",
        category=Category.PARAMETERS,
        about="small tensors that stay gathered once the first tokens have brought them",
        numel=lambda p: _highest(p, moment).persistent,
        dtype=lambda p: DType.UINT8,  # counted in bytes: several dtypes together
        live=frozenset({moment}),
        when=lambda p: _is_partitioned(p) and (moment is Moment.PREFILL or p.new_tokens > 1),
        source="runtime/zero/partitioned_param_coordinator.py:508-509,634",
    )


def _unpacked(moment: Moment) -> Entry:
    return Entry(
        name=f"weight_being_unpacked_in_{moment.phase.value}",
        category=Category.TEMPORARY,
        about="a packed weight as the product takes it, or the codes of its input",
        numel=lambda p: _highest(p, moment).unpacked,
        dtype=lambda p: DType.UINT8,  # counted in bytes: several dtypes together
        live=frozenset({moment}),
        when=lambda p: (
            (p.model.quantization is not None or p.model.codes is not None)
            and (moment is Moment.PREFILL or p.new_tokens > 1)
        ),
        source="bitsandbytes 0.50.2 autograd/_functions.py, MatMul4Bit, MatMul8bitLt",
    )


ENTRIES = (
    Entry(
        name="weights",
        category=Category.PARAMETERS,
        about="weights that are not packed",
        numel=_weight_bytes,
        dtype=lambda p: DType.UINT8,  # counted in bytes: several dtypes together
        live=IN_INFERENCE,
        when=lambda p: not _is_partitioned(p),
        source="transformers 5.23 modeling_utils.py, from_pretrained",
    ),
    Entry(
        name="quantized_weights",
        category=Category.PARAMETERS,
        about="weights as packed codes",
        numel=_code_bytes,
        dtype=lambda p: DType.UINT8,
        live=IN_INFERENCE,
        when=lambda p: not _is_partitioned(p),
        source=_BITSANDBYTES,
    ),
    Entry(
        name="quantization_statistics",
        category=Category.PARAMETERS,
        about="scales, zero points and tables that undo the packing",
        numel=lambda p: _buffer_bytes(p, statistics=True),
        dtype=lambda p: DType.UINT8,  # counted in bytes: several dtypes together
        live=IN_INFERENCE,
        source=_BITSANDBYTES,
    ),
    Entry(
        name="model_buffers",
        category=Category.MODEL_BUFFERS,
        about="the model's registered buffers (rotary frequencies, masks)",
        numel=lambda p: _buffer_bytes(p, statistics=False),
        dtype=lambda p: DType.UINT8,  # counted in bytes: several dtypes together
        live=IN_INFERENCE,
        source="transformers 5.23 modeling_utils.py, from_pretrained",
    ),
    Entry(
        name="partitions",
        category=Category.PARAMETERS,
        about="this rank's partition of every weight; with NVMe, of those too small for it",
        numel=_partitions,
        dtype=lambda p: DType.UINT8,  # counted in bytes: several dtypes together
        live=_from_partitioning,
        when=_is_partitioned,
        device=parked_on,
        pinned=lambda p: p.param_device is not Device.GPU and p.param_pinned,
        source="runtime/zero/partition_parameters.py:1693-1850",
    ),
    Entry(
        name="param_swap_files",
        category=Category.PARAMETERS,
        about="this rank's partitions on NVMe",
        numel=lambda p: _partitions(p, on_nvme=True),
        dtype=lambda p: DType.UINT8,  # counted in bytes: several dtypes together
        live=_from_partitioning,
        when=_is_partitioned,
        device=lambda p: Device.NVME,
        source="runtime/swap_tensor/partitioned_param_swapper.py",
    ),
    Entry(
        name="module_weights_before_partitioning",
        category=Category.PARAMETERS,
        about="the whole model on the device, because it is not built under zero.Init",
        numel=lambda p: _weight_bytes(p) + _code_bytes(p),
        dtype=lambda p: DType.UINT8,  # counted in bytes: several dtypes together
        live=frozenset({Moment.BUILT}),
        when=lambda p: _is_partitioned(p) and not p.zero_init,
        source="runtime/zero/parameter_offload.py:120-180",
    ),
    Entry(
        name="model_on_host",
        category=Category.PARAMETERS,
        about="the model as it is loaded, in every process, before it moves to the GPU",
        numel=lambda p: _weight_bytes(p, p.model.whole or p.model),
        dtype=lambda p: DType.UINT8,  # counted in bytes: several dtypes together
        live=frozenset({Moment.LOADED}),
        when=lambda p: p.model.quantization is None and not (_is_partitioned(p) and p.zero_init),
        device=lambda p: Device.HOST,
        source="transformers 5.23 modeling_utils.py, from_pretrained",
    ),
    Entry(
        name="prompts",
        category=Category.ACTIVATIONS,
        about="token ids and attention mask, which the caller holds",
        numel=lambda p: (p.micro_batch * p.seq_len, p.micro_batch * p.seq_len),
        dtype=lambda p: DType.INT64,
        live=RUNS,
        source="transformers 5.23 generation/utils.py, generate",
    ),
    *(_cache_entry(moment) for moment in (Moment.PREFILL, Moment.DECODE)),
    *(_activations(moment) for moment in (Moment.PREFILL, Moment.DECODE)),
    *(_unpacked(moment) for moment in (Moment.PREFILL, Moment.DECODE)),
    *(_gathered(moment) for moment in (Moment.PREFILL, Moment.DECODE)),
    *(_persistent(moment) for moment in (Moment.PREFILL, Moment.DECODE)),
    Entry(
        name="cublas_workspace",
        category=Category.RUNTIME,
        about="the workspace that PyTorch gives cuBLAS",
        numel=lambda p: p.blas_workspace,
        dtype=lambda p: DType.UINT8,
        live=RUNS,
        source=SOURCE,
    ),
)
