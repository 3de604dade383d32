"""The model as the script loads it, until DeepSpeed takes it: on the host, or on the GPU."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from zero_sizer.config import workload
from zero_sizer.hardware.device import Device
from zero_sizer.ledger.entries.conditions import under_init
from zero_sizer.ledger.entry import Category, Entry
from zero_sizer.ledger.moments import Moment
from zero_sizer.plan import sizes
from zero_sizer.plan.plan import Plan
from zero_sizer.units import DType, num_bytes


def _is_put_there(plan: Plan) -> bool:
    """Under zero.Init, and where bitsandbytes quantizes tensor by tensor as they are read."""
    return under_init(plan) or plan.model.quantization is not None


def _built_on_gpu(plan: Plan) -> bool:
    return _is_put_there(plan) or plan.loaded_on != workload.HOST


def _dtypes_built(plan: Plan) -> Iterator[DType]:
    """Of every tensor as the script builds it; adapters are in fp32 whatever the base is.

    Tools that load onto the GPU do so in the training dtype, whatever the checkpoint has
    (LLaMA-Factory model/patcher.py, axolotl loaders/model.py).
    """
    usual = plan.built_dtype if plan.loaded_on == workload.HOST else plan.model_dtype
    return (dtype or usual for dtype in plan.model.dtypes)


def _built_bytes(plan: Plan) -> int:
    return sum(map(num_bytes, sizes.numels(plan), _dtypes_built(plan)))


def _cast_bytes(plan: Plan) -> int:
    """Most that is held beyond the model as built while the engine casts it."""
    built = tuple(_dtypes_built(plan))
    return _most_of_cast(sizes.numels(plan), built, sizes.dtypes(plan)) - _built_bytes(plan)


def _most_of_cast(numels: Sequence[int], before: Sequence[DType], after: Sequence[DType]) -> int:
    """Most bytes held while tensors are cast one by one, each beside what it is cast from."""
    held = most = sum(map(num_bytes, numels, before))
    for numel, old, new in zip(numels, before, after, strict=True):
        if old is not new:
            most = max(most, held + num_bytes(numel, new))
            held += num_bytes(numel, new) - num_bytes(numel, old)
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

    A script may cast what is trained to fp32; the engine then casts all of it.
    """
    numels, trained = sizes.numels(plan), sizes.dtypes(plan)
    dtypes = [tuple(_dtypes_built(plan)), trained]
    if plan.loaded_on == workload.GPU_FP32:
        pairs = zip(plan.model.parameters, dtypes[0], strict=True)
        dtypes.insert(1, tuple([DType.FP32 if tensor.trainable else of for tensor, of in pairs]))
    most = max(_most_of_cast(numels, before, after) for before, after in pairwise(dtypes))
    return most - sum(map(num_bytes, numels, trained))


ENTRIES = (
    Entry(
        name="weights_cast_on_gpu",
        category=Category.TEMPORARY,
        about="the model as the script loads it to the GPU, beyond the training dtype",
        numel=_beyond_trained,
        dtype=lambda p: DType.UINT8,  # counted in bytes: several dtypes together
        live=frozenset({Moment.BUILT}),
        when=lambda p: p.loaded_on != workload.HOST and not _is_put_there(p),
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
