"""The model as the script loads it, until DeepSpeed takes it: on the host, or on the GPU."""

from collections.abc import Iterator

from zero_sizer.config import workload
from zero_sizer.hardware.device import Device
from zero_sizer.ledger.entries.conditions import under_init
from zero_sizer.ledger.entry import Category, Entry
from zero_sizer.ledger.moments import Moment
from zero_sizer.plan import sizes
from zero_sizer.plan.plan import Plan
from zero_sizer.units import DType, num_bytes


def _built_on_gpu(plan: Plan) -> bool:
    """Under zero.Init, where bitsandbytes quantizes what is read, and where a script says so."""
    packs = plan.model.quantization is not None
    return under_init(plan) or packs or plan.loaded_on != workload.HOST


def _loaded_on_gpu(plan: Plan) -> bool:
    """The script loads whole weights to the GPU before DeepSpeed takes the model."""
    packs = plan.model.quantization is not None
    return plan.loaded_on != workload.HOST and not (under_init(plan) or packs)


def _dtypes_built(plan: Plan) -> Iterator[DType]:
    """Of every tensor as the script builds it; adapters are in fp32 whatever the base is."""
    return (dtype or plan.built_dtype for dtype in plan.model.dtypes)


def _built_bytes(plan: Plan) -> int:
    return sum(map(num_bytes, sizes.numels(plan), _dtypes_built(plan)))


def _cast_bytes(plan: Plan) -> int:
    """Most that is held beyond the model as built while it is cast tensor by tensor."""
    most = done = 0
    for numel, dtype, built in zip(
        sizes.numels(plan), sizes.dtypes(plan), _dtypes_built(plan), strict=True
    ):
        if dtype is not built:
            most = max(most, done + num_bytes(numel, dtype))
            done += num_bytes(numel, dtype) - num_bytes(numel, built)
    return most


def _largest_adapter(plan: Plan) -> int:
    """Elements of the largest layer's A and B."""
    layers: dict[str, int] = {}
    for tensor in plan.model.parameters:
        layer, is_adapter, _ = tensor.name.partition(".lora_")
        if is_adapter:
            layers[layer] = layers.get(layer, 0) + tensor.numel
    return max(layers.values(), default=0)


def _beyond_trained(plan: Plan) -> int:
    """Most bytes of weights on the GPU beyond those that are trained, while they are cast there.

    A script may cast what is trained to fp32, tensor by tensor; the engine then casts all of them.
    """
    found = [
        (num_bytes(numel, built), num_bytes(numel, dtype), tensor.trainable)
        for tensor, numel, built, dtype in zip(
            plan.model.parameters,
            sizes.numels(plan),
            _dtypes_built(plan),
            sizes.dtypes(plan),
            strict=True,
        )
    ]
    if plan.loaded_on == workload.GPU_FP32:
        numels = sizes.numels(plan)
        fp32 = [
            num_bytes(numel, DType.FP32) if trains else built
            for numel, (built, _, trains) in zip(numels, found, strict=True)
        ]
        loaded = _most_of_cast([built for built, _, _ in found], fp32)
    else:
        fp32, loaded = [built for built, _, _ in found], 0
    trained = [dtype for _, dtype, _ in found]
    return max(loaded, _most_of_cast(fp32, trained)) - sum(trained)


def _most_of_cast(before: list[int], after: list[int]) -> int:
    """Most bytes held while tensors are cast one by one; those of a size are left as they are."""
    held = most = sum(before)
    for old, new in zip(before, after, strict=True):
        if old != new:
            most = max(most, held + new)
            held += new - old
    return most


ENTRIES = (
    Entry(
        name="weights_cast_on_gpu",
        category=Category.TEMPORARY,
        about="the model as the script loads it to the GPU, beyond the training dtype",
        numel=_beyond_trained,
        dtype=lambda p: DType.UINT8,  # counted in bytes: several dtypes together
        live=frozenset({Moment.BUILT}),
        when=_loaded_on_gpu,
        source="the script's device_map and casts; runtime/engine.py:1851-1875",
    ),
    Entry(
        name="adapter_made_on_host",
        category=Category.TEMPORARY,
        about="the largest layer's adapter, which peft makes on the host and moves to its base",
        numel=_largest_adapter,
        dtype=lambda p: DType.FP32,
        live=frozenset({Moment.BUILT}),
        when=lambda p: p.model.adapter is not None and _built_on_gpu(p),
        device=lambda p: Device.HOST,
        source="peft 0.21.2 tuners/lora/layer.py, LoraLayer.update_layer",
    ),
    Entry(
        name="model_on_host",
        category=Category.PARAMETERS,
        about="the model as the script builds it, in every process, before it moves to the GPU",
        numel=_built_bytes,
        dtype=lambda p: DType.UINT8,  # counted in bytes: adapters are in fp32
        live=frozenset({Moment.LOADED, Moment.BUILT}),
        when=lambda p: not _built_on_gpu(p),
        device=lambda p: Device.HOST,
        source="runtime/engine.py:1365-1440",
    ),
    Entry(
        name="cast_on_host",
        category=Category.TEMPORARY,
        about="tensors cast to the training dtype before those they were cast from are gone",
        numel=_cast_bytes,
        dtype=lambda p: DType.UINT8,  # counted in bytes: several dtypes together
        live=frozenset({Moment.BUILT}),
        when=lambda p: (
            (p.built_dtype is not p.model_dtype or p.model.adapter is not None)
            and not _built_on_gpu(p)
        ),
        device=lambda p: Device.HOST,
        source="runtime/engine.py:2080-2088",
    ),
)
