"""Saving: the model and the optimizer's states on their way through host memory.

Loading needs no entry of its own: the model as it is built is there while it is filled.
"""

from zero_sizer.hardware.device import Device
from zero_sizer.ledger.entries.conditions import is_zero3, resident, updated_on
from zero_sizer.ledger.entry import Category, Entry
from zero_sizer.ledger.moments import Moment
from zero_sizer.plan import sizes
from zero_sizer.plan.plan import Plan
from zero_sizer.units import DType
from zero_sizer.zero.partition import padded
from zero_sizer.zero.wrapper import Wrapper

_PARTITIONED = (Wrapper.ZERO12, Wrapper.BF16, Wrapper.ZERO3)


def _state_dict_bytes(plan: Plan) -> int:
    """Bytes of the whole model's state dict; tied tensors stand in it under each name."""
    whole = sum(n * size for n, size in zip(sizes.numels(plan), sizes.itemsizes(plan), strict=True))
    return whole + _tied_numel(plan) * plan.itemsize


def _tied_numel(plan: Plan) -> int:
    arch, tensors = plan.model.arch, plan.model.parameters
    if not arch.tied_embeddings or arch.vocab is None:
        return 0
    return max((t.numel for t in tensors if t.shape[:1] == (arch.vocab,)), default=0)


def _gathered(plan: Plan) -> tuple[tuple[int, int], ...]:
    """Elements and bytes an element of what rank 0 gathers to save: of adapters, only these."""
    all_of_it = plan.model.adapter is None
    rows = zip(plan.model.parameters, sizes.numels(plan), sizes.itemsizes(plan), strict=True)
    return tuple((n, size) for tensor, n, size in rows if all_of_it or tensor.trainable)


def _gathers(plan: Plan) -> bool:
    """accelerate asks the key; the Trainer gathers adapters whatever it says."""
    return is_zero3(plan) and (plan.gathers_on_save or plan.model.adapter is not None)


def _largest_gathered(plan: Plan) -> int:
    ranks = plan.dp_world_size
    return max((padded(n, ranks) * size for n, size in _gathered(plan)), default=0)


def _largest_storage(plan: Plan) -> int:
    """Elements of the largest flat buffer on the GPU that this rank writes."""
    found = zip(resident(plan), updated_on(plan), strict=True)
    return max((numel for numel, where in found if where is Device.GPU), default=0)


ENTRIES = (
    Entry(
        name="state_dict_on_host",
        category=Category.TEMPORARY,
        about="the whole model, which accelerate copies to the host in every process to save it",
        numel=_state_dict_bytes,
        dtype=lambda p: DType.UINT8,  # counted in bytes: several dtypes together
        live=frozenset({Moment.SAVED}),
        when=lambda p: p.stage < 3,
        device=lambda p: Device.HOST,
        source="accelerate 1.15 accelerator.py:4093-4095, checkpoint/utils.py:41-67",
    ),
    Entry(
        name="consolidated_state_dict",
        category=Category.TEMPORARY,
        about="the weights, gathered module by module into rank 0's host memory to be saved",
        numel=lambda p: sum(n * size for n, size in _gathered(p)),
        dtype=lambda p: DType.UINT8,  # counted in bytes: several dtypes together
        live=frozenset({Moment.SAVED}),
        when=_gathers,
        device=lambda p: Device.HOST,
        once_per_node=True,
        source="runtime/engine.py:5631-5705, transformers 5.23 trainer.py:4101-4113",
    ),
    Entry(
        name="tensor_being_gathered_to_save",
        category=Category.TEMPORARY,
        about="the largest tensor, gathered on the GPU before it goes to the host",
        numel=_largest_gathered,
        dtype=lambda p: DType.UINT8,  # counted in bytes: several dtypes together
        live=frozenset({Moment.SAVED}),
        when=lambda p: _gathers(p) and sizes.gathers_copies(p),
        source="runtime/engine.py:5660-5676",
    ),
    Entry(
        name="storage_being_written",
        category=Category.TEMPORARY,
        about="the largest flat buffer, which torch.save copies to the host before it is written",
        numel=_largest_storage,
        dtype=lambda p: p.master_dtype,
        live=frozenset({Moment.WRITTEN}),
        when=lambda p: p.wrapper in _PARTITIONED,
        device=lambda p: Device.HOST,
        source="runtime/engine.py:5549-5567, torch 2.13 serialization.py:1290-1310",
    ),
)
