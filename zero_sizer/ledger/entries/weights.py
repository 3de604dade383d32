"""The model's own weights: trainable and frozen, whole or partitioned, and the model's buffers."""

from functools import lru_cache

from zero_sizer.hardware.device import Device
from zero_sizer.ledger.entries.conditions import being_cut, is_cut_whole, parked_on
from zero_sizer.ledger.entry import Category, Entry
from zero_sizer.ledger.moments import ALWAYS, FROM_FLATTEN, FROM_WRAPPING, PASSES, Moment
from zero_sizer.plan import sizes
from zero_sizer.plan.plan import Plan
from zero_sizer.units import DType, num_bytes
from zero_sizer.util.identity import Identity
from zero_sizer.zero.partition import flat_partition, padded, partitions_of, tensor_partition
from zero_sizer.zero.wrapper import Wrapper

_FLAT = (Wrapper.ZERO12, Wrapper.BF16)
_BUILDING = frozenset({Moment.BUILT, Moment.FILLED, Moment.FLATTEN})


def _model_buffer_numels(dtype: DType) -> Entry:
    return Entry(
        name=f"model_buffers_{dtype.value}",
        category=Category.MODEL_BUFFERS,
        about="the model's registered buffers (rotary frequencies, masks)",
        numel=lambda p: _buffers(Identity(p.model), p.model_dtype, dtype),
        dtype=lambda p: dtype,
        live=ALWAYS,
        in_blocks=True,
        source="runtime/engine.py:1365-1440",
    )


@lru_cache(maxsize=256)
def _buffers(model: Identity, unsaid: DType, wanted: DType) -> tuple[int, ...]:
    """Elements of each buffer of a dtype: the engine casts none of them (engine.py:1851-1875)."""
    return tuple([b.numel for b in model.of.buffers if (b.dtype or unsaid) is wanted])


def _fp32_beyond(plan: Plan) -> int:
    """Bytes by which adapters in fp32 are larger than cast."""
    return sizes.num_trainable(plan) * (DType.FP32.itemsize - plan.itemsize)


def _beyond_cast(plan: Plan) -> int:
    """Bytes of fp32 adapters beyond what comes after the cast, where the model is cut."""
    return max(_fp32_beyond(plan) - (being_cut(plan) if is_cut_whole(plan) else 0), 0)


def _being_cast(plan: Plan) -> int:
    """Bytes of the largest tensor's cast, beyond what comes after it, where the model is cut.

    Adapters, which are cast last, are still in fp32 then.
    """
    cast = num_bytes(max(sizes.frozen(plan), default=0), plan.model_dtype)
    beyond = _fp32_beyond(plan) if plan.model.adapter is not None else 0
    after = being_cut(plan) if is_cut_whole(plan) else 0
    return max(beyond + cast - max(beyond, after), 0)


def _flattened_at_most(plan: Plan) -> int:
    """Index of the param group at whose flattening the GPU holds most."""
    masters = 0
    held = []
    for tensors, part in zip(sizes.groups(plan), sizes.partitions(plan), strict=True):
        held.append(masters + plan.itemsize * sum(tensors))
        masters += 0 if plan.offloads_optimizer else plan.master_dtype.itemsize * part
    return held.index(max(held)) if held else 0


def _partitions_live(plan: Plan) -> frozenset[Moment]:
    """Adapters come beside a base that is built, and are cut when the engine takes the model."""
    is_built = plan.zero_init and plan.model.adapter is None
    return _BUILDING if is_built else frozenset({Moment.FLATTEN})


def _linked_numel(plan: Plan) -> int:
    """The gathered tensor, and its own partition when that first has to come from the host."""
    ranks = plan.dp_world_size
    brought = tensor_partition(sizes.largest_tensor(plan), ranks)
    return padded(sizes.largest_tensor(plan), ranks) + (
        0 if plan.param_device is Device.GPU else brought
    )


ENTRIES = (
    Entry(
        name="parameters",
        category=Category.PARAMETERS,
        about="weights of the model, replicated",
        numel=sizes.num_trainable,
        dtype=lambda p: p.model_dtype,
        live=ALWAYS,
        when=lambda p: p.wrapper in (Wrapper.NONE, Wrapper.FP16_FUSED, Wrapper.FP16_UNFUSED),
        source="runtime/engine.py:1365-1440",
    ),
    Entry(
        name="module_weights_before_flattening",
        category=Category.PARAMETERS,
        about="the model as built, until its tensors become views of the flat buffers",
        numel=sizes.num_trainable,
        dtype=lambda p: p.model_dtype,
        live=frozenset({Moment.BUILT}),
        when=lambda p: p.wrapper in _FLAT,
        source="runtime/zero/stage_1_and_2.py:451-512",
    ),
    Entry(
        name="group_being_flattened",
        category=Category.PARAMETERS,
        about="the tensors of one param group beside their flat buffer, when most is held",
        numel=lambda p: sum(sum(g) for g in sizes.groups(p)[_flattened_at_most(p) :][:1]),
        dtype=lambda p: p.model_dtype,
        live=frozenset({Moment.FLATTEN}),
        when=lambda p: p.wrapper in _FLAT and sizes.flattens_on_gpu(p),
        source="runtime/zero/stage_1_and_2.py:451-512",
    ),
    Entry(
        name="masters_of_flattened_groups",
        category=Category.MASTER_WEIGHTS,
        about="the optimizer's copy of the groups flattened before",
        numel=lambda p: sum(sizes.partitions(p)[: _flattened_at_most(p)]),
        dtype=lambda p: p.master_dtype,
        live=frozenset({Moment.FLATTEN}),
        when=lambda p: p.wrapper in _FLAT and sizes.flattens_on_gpu(p) and not p.offloads_optimizer,
        source="runtime/zero/stage_1_and_2.py:558-576",
    ),
    Entry(
        name="flattening_through_host",
        category=Category.TEMPORARY,
        about="weights and their flat buffer, on the host because the GPU has no room for both",
        numel=lambda p: sizes.num_trainable(p) + sum(sizes.flat_groups(p)),
        dtype=lambda p: p.model_dtype,
        live=frozenset({Moment.FLATTEN}),
        when=lambda p: p.wrapper is Wrapper.ZERO12 and not sizes.flattens_on_gpu(p),
        device=lambda p: Device.HOST,
        source="runtime/zero/stage_1_and_2.py:451-467,508-530",
    ),
    Entry(
        name="bit16_groups_flat",
        category=Category.PARAMETERS,
        about="weights as one padded flat buffer per group, replicated",
        numel=lambda p: sum(sizes.flat_groups(p)),
        dtype=lambda p: p.model_dtype,
        live=FROM_FLATTEN,
        when=lambda p: p.wrapper in _FLAT,
        source="runtime/zero/stage_1_and_2.py:505-512",
    ),
    Entry(
        name="frozen_parameters",
        category=Category.PARAMETERS,
        about="weights without requires_grad, replicated",
        numel=lambda p: sum(sizes.frozen(p)),
        dtype=lambda p: p.model_dtype,
        live=ALWAYS,
        when=lambda p: p.stage < 3,
        source="runtime/engine.py:1365-1440",
    ),
    Entry(
        name="quantized_parameters",
        category=Category.PARAMETERS,
        about="frozen weights as packed codes, replicated",
        numel=lambda p: sum(sizes.frozen_codes(p)),
        dtype=lambda p: DType.UINT8,
        live=lambda p: ALWAYS if p.stage < 3 else frozenset({Moment.BUILT}),
        source="bitsandbytes 0.50.2 functional.py:884, nn/modules.py:719",
    ),
    Entry(
        name="adapters_before_cast",
        category=Category.PARAMETERS,
        about="what peft makes in fp32 beside a base that is on the GPU already, until it is cast",
        numel=_beyond_cast,
        dtype=lambda p: DType.UINT8,  # counted in bytes: fp32 beyond the model's own dtype
        live=frozenset({Moment.BUILT}),
        when=lambda p: p.model.quantization is not None and p.model.adapter is not None,
        source="peft 0.21.2 tuners/tuners_utils.py:2705, runtime/engine.py:1859",
    ),
    Entry(
        name="cast_on_gpu",
        category=Category.TEMPORARY,
        about="the largest tensor, cast to the training dtype beside itself",
        numel=_being_cast,
        dtype=lambda p: DType.UINT8,  # counted in bytes, as what comes after it is
        live=frozenset({Moment.BUILT}),
        when=lambda p: p.model.quantization is not None and p.built_dtype is not p.model_dtype,
        source="runtime/engine.py:1859",
    ),
    Entry(
        name="quantized_partitions",
        category=Category.PARAMETERS,
        about="this rank's partition of every packed weight",
        numel=lambda p: partitions_of(sizes.frozen_codes(p), p.dp_world_size),
        dtype=lambda p: DType.UINT8,
        live=FROM_FLATTEN,
        when=lambda p: p.wrapper is Wrapper.ZERO3,
        device=lambda p: p.param_device,
        pinned=lambda p: p.param_device is Device.HOST and p.param_pinned,
        source="runtime/zero/partition_parameters.py:1693-1830",
    ),
    Entry(
        name="module_weights_before_partitioning",
        category=Category.PARAMETERS,
        about="the whole model on the device, because it is not built under zero.Init",
        numel=lambda p: sizes.num_trainable(p) + sum(sizes.frozen(p)),
        dtype=lambda p: p.model_dtype,
        live=frozenset({Moment.BUILT}),
        when=lambda p: p.wrapper is Wrapper.ZERO3 and not p.zero_init,
        source="runtime/zero/parameter_offload.py:120-180",
    ),
    Entry(
        name="defragmentation_copy",
        category=Category.TEMPORARY,
        about="the partitions, copied to the host and back into one buffer",
        numel=sizes.partition_numel,
        dtype=sizes.trained_dtype,
        live=frozenset({Moment.FLATTEN}),
        when=lambda p: p.wrapper is Wrapper.ZERO3 and p.param_device is Device.GPU,
        device=lambda p: Device.HOST,
        source="runtime/zero/utils.py:215-243",
    ),
    Entry(
        name="tensor_being_linked",
        category=Category.TEMPORARY,
        about="the largest tensor, gathered while optimizer states are linked to parameters",
        numel=_linked_numel,
        dtype=sizes.trained_dtype,
        live=frozenset({Moment.LINKING}),
        when=lambda p: p.wrapper is Wrapper.ZERO3,
        source="runtime/zero/stage3.py:1501-1531",
    ),
    Entry(
        name="ds_tensor",
        category=Category.PARAMETERS,
        about="this rank's partition of every weight, before it moves to the flat buffer",
        numel=lambda p: partitions_of(sizes.trainable(p), p.dp_world_size),
        dtype=sizes.trained_dtype,
        live=_partitions_live,
        when=lambda p: p.wrapper is Wrapper.ZERO3,
        device=parked_on,
        pinned=lambda p: p.param_device is Device.HOST and p.param_pinned,
        source="runtime/zero/partition_parameters.py:1693-1830",
    ),
    Entry(
        name="lp_param_buffer",
        category=Category.PARAMETERS,
        about="this rank's partition of every trained weight",
        numel=sizes.partition_numel,
        dtype=sizes.trained_dtype,
        live=FROM_WRAPPING,
        when=lambda p: p.wrapper is Wrapper.ZERO3 and p.param_device is Device.GPU,
        source="runtime/zero/stage3.py:972",
    ),
    Entry(
        name="frozen_partitions",
        category=Category.PARAMETERS,
        about="this rank's partition of every frozen weight",
        numel=lambda p: partitions_of(sizes.frozen(p), p.dp_world_size),
        dtype=lambda p: p.model_dtype,
        live=lambda p: ALWAYS if p.zero_init else FROM_FLATTEN,
        when=lambda p: p.wrapper is Wrapper.ZERO3,
        device=lambda p: p.param_device,
        pinned=lambda p: p.param_device is Device.HOST and p.param_pinned,
        source="runtime/zero/partition_parameters.py:1693-1830",
    ),
    Entry(
        name="persistent_parameters",
        category=Category.PARAMETERS,
        about="small tensors that stay gathered between steps",
        numel=sizes.persistent_bytes,
        dtype=lambda p: DType.UINT8,  # counted in bytes: several dtypes together
        live=PASSES | {Moment.DONE},
        when=lambda p: p.wrapper is Wrapper.ZERO3 and sizes.gathers_copies(p),
        source="runtime/zero/parameter_offload.py:317-335, runtime/zero/stage3.py:2841,2878",
    ),
    Entry(
        name="persistent_partitions_on_gpu",
        category=Category.TEMPORARY,
        about="this rank's partitions of the small tensors, brought from the host to be gathered",
        numel=lambda p: flat_partition(sizes.persistent_bytes(p), p.dp_world_size),
        dtype=lambda p: DType.UINT8,  # counted in bytes: several dtypes together
        live=frozenset({Moment.DONE}),
        when=lambda p: (
            p.wrapper is Wrapper.ZERO3 and p.param_device is not Device.GPU and p.dp_world_size > 1
        ),
        source="runtime/zero/partition_parameters.py:1329-1371, runtime/zero/stage3.py:2841",
    ),
    *(
        _model_buffer_numels(dtype)
        for dtype in (
            DType.FP32,
            DType.BF16,
            DType.FP16,
            DType.INT64,
            DType.INT32,
            DType.BOOL,
            DType.UINT8,
        )
    ),
)
