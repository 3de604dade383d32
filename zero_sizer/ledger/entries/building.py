"""A model that is cut, under ``deepspeed.zero.Init`` or built already: what is whole on the way."""

from collections import Counter
from functools import lru_cache
from itertools import chain
from math import prod

from zero_sizer.config.workload import TRAINING
from zero_sizer.hardware.device import Device
from zero_sizer.ledger.entries.conditions import (
    being_cut,
    is_cut_whole,
    under_init,
)
from zero_sizer.ledger.entry import Category, Entry
from zero_sizer.ledger.moments import ALWAYS, IN_INFERENCE, Moment
from zero_sizer.models.changes.group_codes import stored_numel, while_made
from zero_sizer.models.spec import ModelSpec
from zero_sizer.plan import sizes
from zero_sizer.plan.parallel import hpz_ranks
from zero_sizer.plan.plan import Plan
from zero_sizer.units import DType
from zero_sizer.util.identity import Identity
from zero_sizer.zero import construction, secondary
from zero_sizer.zero.partition import tensor_partition
from zero_sizer.zero.wrapper import Wrapper


@lru_cache(maxsize=64)
def _modules_of(model: Identity, *, is_stored: bool = False) -> dict[str, list[int]]:
    """Elements of what each module owns as it is built, copies that are tied later included.

    ``is_stored``: as it lies in its partitions, where the weights become codes.
    """
    copies = _tied_copies(model)
    found: dict[str, list[int]] = {}
    spec = model.of
    for tensor in (spec.base if spec.base is not None and not is_stored else spec).parameters:
        embedding = f"{tensor.module.partition('.')[0]}.embed_tokens"  # a stack builds it first
        if embedding in copies:
            found.setdefault(embedding, [copies[embedding]])
        found.setdefault(tensor.module, []).append(tensor.numel)
    return found | {name: [numel] for name, numel in copies.items()}


@lru_cache(maxsize=64)
def _tied_copies(model: Identity) -> dict[str, int]:
    """Elements of the modules that are built before transformers ties them to the embedding.

    Beside the head, an encoder and a decoder have their own.
    """
    arch, codes = model.of.arch, model.of.codes
    numel = _table_numel(model.of)
    if codes is not None:  # the head is a plain Linear, whatever the embedding is
        numel = stored_numel(numel, codes, _itemsize_of_codes(model.of))
    stacks = ("encoder.embed_tokens", "decoder.embed_tokens") if arch.decoder_layers else ()
    heads = ("lm_head",) if arch.tied_embeddings else ()
    return dict.fromkeys((*stacks, *heads), numel) if numel else {}


def _table_numel(spec: ModelSpec) -> int:
    """Elements of the largest matrix with a row for each token."""
    tables = (t for t in spec.parameters if t.matrix[:1] == (spec.arch.vocab,))
    return max((prod(t.matrix) for t in tables), default=0)


def _itemsize_of_codes(spec: ModelSpec) -> int:
    return next((t.dtype.itemsize for t in spec.parameters if t.unpacked and t.dtype), 1)


def copies_numel(plan: Plan) -> tuple[int, ...]:
    """Elements of one rank's partitions of the modules that are tied only when they are built."""
    copies, ranks, group = (
        _tied_copies(Identity(plan.model)).values(),
        plan.dp_world_size,
        hpz_ranks(plan),
    )
    second = secondary.numels(copies, ranks, group) if group else ()
    return (*(tensor_partition(numel, ranks) for numel in copies), *second)


def _built_numel(plan: Plan) -> int:
    """Most on the GPU while modules are built, beyond the partitions of all of them."""
    is_parked = plan.param_device is not Device.GPU
    is_cast = plan.built_dtype is not plan.model_dtype
    wider = plan.built_dtype.itemsize // plan.itemsize if is_cast else 0
    return _built(Identity(plan.model), plan.dp_world_size, hpz_ranks(plan), is_parked, wider)


@lru_cache(maxsize=64)
def _built_modules(model: Identity) -> tuple[construction.Modules, Counter[int]]:
    """What each module owns, and how many tensors have so many elements."""
    modules = _modules_of(model).values()
    return construction.Modules(modules), Counter(chain.from_iterable(modules))


@lru_cache(maxsize=256)
def _built(model: Identity, ranks: int, group: int, is_parked: bool, wider: int) -> int:
    modules, counts = _built_modules(model)
    most = modules.most_being_built(ranks, is_parked=is_parked, wider=wider, group=group)
    parts = (construction.partition_numel(n, ranks, group) * c for n, c in counts.items())
    return max(most - (0 if is_parked else sum(parts)), 0)


def _being_pinned(plan: Plan) -> int:
    """Most on the host while partitions are pinned, beyond those that are there in the end."""
    model, ranks = Identity(plan.model), plan.dp_world_size
    if under_init(plan):
        return _pinned_under_init(model, ranks, plan.itemsize)
    together = zip(sizes.numels(plan), sizes.itemsizes(plan), strict=True)
    return construction.most_being_pinned(
        [tensor_partition(numel, ranks) * itemsize for numel, itemsize in together]
    )


@lru_cache(maxsize=256)
def _pinned_under_init(model: Identity, ranks: int, itemsize: int) -> int:
    last_first, largest = _pinned_last_first(model)
    parts = (tensor_partition(numel, ranks) * itemsize for numel in last_first)
    return construction.beyond_pinned(parts, tensor_partition(largest, ranks) * itemsize)


@lru_cache(maxsize=64)
def _pinned_last_first(model: Identity) -> tuple[tuple[int, ...], int]:
    """Elements of what is partitioned, the last first, and of the largest."""
    is_stored = model.of.codes is not None
    modules = _modules_of(model, is_stored=is_stored).values()
    found = tuple(chain.from_iterable(modules))[::-1]
    return found, max(found, default=0)


def _filled_numel(plan: Plan) -> int:
    """Most that is gathered while weights are filled: a module's own tensors, its children's."""
    is_parked = plan.param_device is not Device.GPU
    return _filled(Identity(plan.model), plan.dp_world_size, is_parked)


@lru_cache(maxsize=256)
def _filled(model: Identity, ranks: int, is_parked: bool) -> int:
    return construction.most_being_filled(_gathered_together(model), ranks, is_parked=is_parked)


@lru_cache(maxsize=64)
def _gathered_together(model: Identity) -> frozenset[tuple[int, ...]]:
    """Elements of the tensors that are gathered to be filled; blocks are alike, so few differ."""
    groups: dict[str, list[int]] = {}
    for module, numels in _modules_of(model, is_stored=model.of.codes is not None).items():
        for name in dict.fromkeys((module, module.rpartition(".")[0])):
            groups.setdefault(name, []).extend(numels)
    return frozenset(map(tuple, groups.values()))


def _coded_bytes(plan: Plan) -> int:
    """Most on the GPU while weights become codes, beyond the partitions of all of them."""
    is_parked = plan.param_device is not Device.GPU
    return _being_coded(Identity(plan.model), plan.dp_world_size, plan.itemsize, is_parked)


@lru_cache(maxsize=64)
def _being_coded(model: Identity, ranks: int, itemsize: int, is_parked: bool) -> int:
    spec = model.of
    modules: dict[str, list[tuple[int, int]]] = {}
    for whole, tensor in zip(spec.base.parameters, spec.parameters, strict=True):
        modules.setdefault(tensor.module, []).append((whole.numel, tensor.numel))
    for name, stored in _tied_copies(model).items():
        modules[name] = [(_table_numel(spec), stored)]
    most = held = 0
    for owned in modules.values():
        whole = sum(numel for numel, _ in owned) * itemsize
        for numel, stored in owned:
            made = while_made(numel, spec.codes, itemsize) if numel != stored else 0
            part = 0 if is_parked else tensor_partition(stored, ranks) * itemsize
            most = max(most, held + whole + made, held + whole + part)
            whole, held = whole - numel * itemsize, held + part
    return max(most - held, 0)


ENTRIES = (
    Entry(
        name="weight_being_quantized",
        category=Category.TEMPORARY,
        about="zero.Init: a whole weight beside its copy and the codes that are made of it",
        numel=_coded_bytes,
        dtype=lambda p: DType.UINT8,
        live=frozenset({Moment.BUILT}),
        when=lambda p: under_init(p) and p.model.codes is not None,
        source="inference/quantization/utils.py:57-99,233-252",
    ),
    Entry(
        name="tensors_being_built",
        category=Category.TEMPORARY,
        about="zero.Init: a module's own tensors, whole until it is built, the last uncast",
        numel=_built_numel,
        dtype=lambda p: p.model_dtype,
        live=frozenset({Moment.BUILT}),
        when=lambda p: under_init(p) and p.model.codes is None,
        source="runtime/zero/partition_parameters.py:263-275,1080-1180",
    ),
    Entry(
        name="partitions_being_cut",
        category=Category.TEMPORARY,
        about="a whole model is cut tensor by tensor: partitions beside what is not cut yet",
        numel=being_cut,
        dtype=lambda p: DType.UINT8,  # counted in bytes: several dtypes together
        live=frozenset({Moment.BUILT}),
        when=is_cut_whole,
        source="runtime/zero/parameter_offload.py:120-180, "
        "runtime/zero/partition_parameters.py:1693-1830",
    ),
    Entry(
        name="partition_being_pinned",
        category=Category.TEMPORARY,
        about="a partition that is made on the host, beside its pinned copy and those before",
        numel=_being_pinned,
        dtype=lambda p: DType.UINT8,  # counted in bytes: several dtypes together
        live=frozenset({Moment.BUILT}),
        when=lambda p: (
            p.wrapper is Wrapper.ZERO3
            and (p.zero_init or p.model.quantization is not None)
            and p.param_device is Device.HOST
            and p.param_pinned
        ),
        device=lambda p: Device.HOST,
        source="runtime/zero/partition_parameters.py:1836-1843",
    ),
    Entry(
        name="tensors_being_filled",
        category=Category.TEMPORARY,
        about="transformers fills weights under zero.Init: a module's and its children's, gathered",
        numel=_filled_numel,
        dtype=lambda p: p.model_dtype,
        live=frozenset({Moment.FILLED}),
        when=under_init,
        source="transformers 5.23 integrations/deepspeed.py, initialize_weights_zero3",
    ),
    Entry(
        name="copies_before_tying",
        category=Category.TEMPORARY,
        about="transformers builds head and embeddings of their own before it ties them; files of "
        "them stay on NVMe",
        numel=copies_numel,
        dtype=lambda p: p.model_dtype,
        live=lambda p: (
            (ALWAYS if p.task == TRAINING else IN_INFERENCE)
            if p.param_device is Device.NVME
            else frozenset({Moment.BUILT, Moment.FILLED})
        ),
        when=under_init,
        device=lambda p: p.param_device,
        pinned=lambda p: p.param_device is Device.HOST and p.param_pinned,
        source="transformers 5.23 modeling_utils.py, PreTrainedModel.tie_weights",
    ),
)
