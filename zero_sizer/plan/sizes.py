"""Sizes that follow from a plan: elements, bytes and predicates, each computed once a plan.

Elements unless a name says bytes; per rank unless it says otherwise.
"""

from collections import Counter
from itertools import chain, compress
from typing import TypeVar

from zero_sizer.hardware.device import Device
from zero_sizer.optimizers.table import Optimizer
from zero_sizer.plan.plan import Plan, derived, derived_of_rank
from zero_sizer.units import CODES, DType, num_bytes, round_up
from zero_sizer.zero import partition
from zero_sizer.zero.wrapper import Wrapper

_Of = TypeVar("_Of")


@derived
def groups(plan: Plan) -> tuple[tuple[int, ...], ...]:
    """Elements of the tensors of each param group."""
    return partition.grouped(numels(plan), plan.group_indices)


@derived
def frozen(plan: Plan) -> tuple[int, ...]:
    """Elements of each tensor without ``requires_grad``, packed codes apart."""
    return _frozen(plan, codes=False)


@derived
def frozen_codes(plan: Plan) -> tuple[int, ...]:
    """Bytes of each frozen tensor that holds packed codes in integers."""
    return _frozen(plan, codes=True)


def _frozen(plan: Plan, *, codes: bool) -> tuple[int, ...]:
    found = (t for t in plan.model.parameters if not t.trainable)
    return tuple(t.numel for t in found if codes is (t.dtype in CODES))


@derived
def trainable(plan: Plan) -> tuple[int, ...]:
    """Elements of each trainable tensor, group by group."""
    return tuple(chain.from_iterable(groups(plan)))


@derived
def largest_tensor(plan: Plan) -> int:
    """Elements of the largest trainable tensor (n_max)."""
    return max(trainable(plan), default=0)


@derived
def num_trainable(plan: Plan) -> int:
    """Trainable elements, unpadded (Psi)."""
    return sum(trainable(plan))


@derived
def flat_groups(plan: Plan) -> tuple[int, ...]:
    """Elements of each ZeRO-1/2 flat group, padded (F)."""
    return tuple(
        partition.flat_numel(g, plan.dp_world_size, plan.align_tensors, plan.itemsize)
        for g in groups(plan)
    )


@derived
def partitions(plan: Plan) -> tuple[int, ...]:
    """Elements of each buffer the optimizer works on: per group (stages 0-2) or sub-group.

    Stage 0: the whole group. Stages 1-2: F/N. Stage 3: each sub-group's partitions.
    """
    match plan.wrapper:
        case Wrapper.ZERO3:
            return tuple(sum(g) for groups in sub_groups(plan) for g in groups)
        case Wrapper.ZERO12 | Wrapper.BF16:
            return tuple(partition.flat_partition(f, plan.dp_world_size) for f in flat_groups(plan))
        case _:
            return tuple(sum(g) for g in groups(plan))


@derived
def sub_groups(plan: Plan) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """Stage-3 sub-groups of each group, as partition sizes of their tensors."""
    return tuple(
        partition.sub_groups(g, plan.dp_world_size, plan.sub_group_size) for g in groups(plan)
    )


@derived
def partition_optimizers(plan: Plan) -> tuple[Optimizer, ...]:
    """The optimizer row of each entry of ``partitions``."""
    counts = [len(s) for s in sub_groups(plan)] if plan.stage == 3 else [1] * len(groups(plan))
    return tuple(
        optimizer
        for optimizer, count in zip(plan.group_optimizers, counts, strict=True)
        for _ in range(count)
    )


@derived
def partition_numel(plan: Plan) -> int:
    """Elements this rank's optimizer owns: Psi, P or P3."""
    return sum(partitions(plan))


@derived_of_rank
def gradient_numel(plan: Plan) -> int:
    """Elements of all gradients a ZeRO-1/2 rank keeps whole (Q), padding excluded."""
    return gradient_numels(plan)[plan.rank]


@derived
def gradient_numels(plan: Plan) -> tuple[int, ...]:
    """Elements of gradients on every rank."""
    return _touched(plan, groups(plan))


def touched_numel(plan: Plan, groups: tuple[tuple[int, ...], ...]) -> int:
    """Elements of all tensors of ``groups`` that this rank's ZeRO-1/2 partitions touch."""
    return _touched(plan, groups)[plan.rank]


def _touched(plan: Plan, groups: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
    where = (plan.dp_world_size, plan.align_tensors, plan.itemsize)
    per_group = [partition.touched(ordered(plan, group), *where) for group in groups]
    return tuple(map(sum, zip(*per_group, strict=True))) or (0,) * plan.dp_world_size


def ordered(plan: Plan, group: tuple[_Of, ...]) -> tuple[_Of, ...]:
    """A group in flat order."""
    return partition.round_robin(group, plan.dp_world_size) if deals_tensors(plan) else group


@derived
def flat_order(plan: Plan) -> tuple[tuple[int, ...], ...]:
    """Parameter indices of each ZeRO-1/2 group, as they lie in its flat buffer."""
    return tuple(ordered(plan, group) for group in plan.group_indices)


@derived
def deals_tensors(plan: Plan) -> bool:
    """True if tensors are dealt out to the ranks one by one; BF16_Optimizer does not."""
    return plan.round_robin and plan.wrapper is Wrapper.ZERO12


@derived
def numels(plan: Plan) -> tuple[int, ...]:
    """Elements of every parameter, frozen ones included, in order."""
    return plan.model.numels


@derived
def dtypes(plan: Plan) -> tuple[DType, ...]:
    """Dtype of every parameter in training; the engine casts to it (engine.py:1859)."""
    cast = {dtype: _dtype_of(plan, dtype) for dtype in set(plan.model.dtypes)}
    return tuple(map(cast.__getitem__, plan.model.dtypes))


@derived
def itemsizes(plan: Plan) -> tuple[int, ...]:
    """Bytes per element of every parameter, in order."""
    return tuple([dtype.itemsize for dtype in dtypes(plan)])


def _dtype_of(plan: Plan, built: DType | None) -> DType:
    if built is None or (built.is_floating and not _keeps_dtypes(plan)):
        return plan.model_dtype
    return built


@derived
def _keeps_dtypes(plan: Plan) -> bool:
    """Whether tensors made beside ``zero.Init``, as adapters are, stay in their own dtype."""
    return plan.wrapper is Wrapper.ZERO3 and plan.zero_init and plan.model.adapter is not None


@derived
def trained_dtype(plan: Plan) -> DType:
    """Dtype of the trainable tensors; DeepSpeed refuses several (zero/utils.py:217)."""
    return dtypes(plan)[plan.group_indices[0][0]] if trainable(plan) else plan.model_dtype


@derived
def is_persistent(plan: Plan) -> tuple[bool, ...]:
    """Which stage-3 parameters stay gathered."""
    return partition.persistent(
        numels(plan), plan.persistence_threshold, plan.model_persistence_threshold
    )


@derived
def persistent_bytes(plan: Plan) -> int:
    """Bytes of the stage-3 parameters that stay gathered, each padded to the ranks."""
    kept = _persistent_kinds(plan).items()
    ranks = plan.dp_world_size
    return sum([count * partition.padded(n, ranks) * size for (n, size), count in kept])


@derived
def _persistent_kinds(plan: Plan) -> Counter[tuple[int, int]]:
    """Elements and bytes of one, of the parameters that stay gathered; how many are alike."""
    each = zip(numels(plan), itemsizes(plan), strict=True)
    return Counter(compress(each, is_persistent(plan)))


@derived
def is_on_nvme(plan: Plan) -> tuple[bool, ...]:
    """Which stage-3 partitions lie on NVMe; smaller ones stay in host memory.

    partition_parameters.py:1820 and partitioned_param_swapper.py:94,137.
    """
    if plan.param_device is not Device.NVME:
        return (False,) * len(numels(plan))
    least, ranks = least_swapped_bytes(plan), plan.dp_world_size
    parts = [partition.tensor_partition(n, ranks) for n in numels(plan)]
    return tuple([n * plan.itemsize >= least for n in parts])


@derived
def is_read_from_nvme(plan: Plan) -> tuple[bool, ...]:
    """Which stage-3 partitions lie on NVMe in training.

    Whole sub-groups move to host memory as long as ``max_in_cpu`` has room for them; what is not
    trained is in none (stage3.py:887-1000, ``_create_param_groups_fp16_flat_cpu_memory``).
    """
    lying = is_on_nvme(plan)
    if not any(lying):
        return lying
    moved = set[int]()
    before = 0
    for indices, cut in zip(plan.group_indices, sub_groups(plan), strict=True):
        total = sum(map(sum, cut))
        room = max(min(total, plan.param_max_in_cpu - before), 1)  # one element where there is none
        before += total
        start = offset = 0
        for parts in cut:
            offset += sum(parts)
            if offset <= room:
                moved.update(indices[start : start + len(parts)])
            start += len(parts)
    return tuple([found and i not in moved for i, found in enumerate(lying)])


@derived
def nvme_buffer_bytes(plan: Plan) -> int:
    """Bytes of all buffers that parameters are read into, each aligned to the AIO unit.

    partitioned_param_swapper.py:95-100,123; the unit is in elements of the model's dtype.
    """
    unit = swap_unit_bytes(plan) // plan.itemsize
    return plan.param_buffer_count * round_up(plan.param_buffer_size, unit) * plan.itemsize


def least_swapped_bytes(plan: Plan) -> int:
    """Bytes of the smallest tensor that is written to NVMe.

    runtime/swap_tensor/utils.py:16, optimizer_utils.py:225-232.
    """
    return max(2**20, plan.aio_block_size)


def swap_unit_bytes(plan: Plan) -> int:
    """Bytes of which buffers and files on NVMe are multiples (optimizer_utils.py:184-190)."""
    return 1024 * plan.aio_parallelism


def num_by_ratio(plan: Plan) -> int:
    """Sub-groups of stage 3 that ``offload_optimizer.ratio`` < 1 gives to torch's AdamW, the first.

    stage3.py:1099-1117.
    """
    return int((1 - plan.optimizer_ratio) * len(partitions(plan)))


def num_on_gpu(plan: Plan) -> int:
    """Sub-groups that ``offload_optimizer.ratio`` < 1 leaves on the GPU, the first ones.

    With NVMe none: what is swapped is asked first (stage3.py:1099-1117).
    """
    if plan.stage < 3 or plan.optimizer_device is Device.NVME:
        return 0
    return num_by_ratio(plan)


def is_swapped(plan: Plan, numel: int) -> bool:
    """A sub-group of ``numel`` lives on NVMe (swap_tensor/optimizer_utils.py)."""
    if plan.optimizer_device is not Device.NVME or plan.stage < 3:
        return False
    return numel * plan.master_dtype.itemsize >= least_swapped_bytes(plan)


def swapped_partitions(plan: Plan) -> tuple[int, ...]:
    """Elements of each sub-group that lives on NVMe."""
    return tuple(n for n in partitions(plan) if is_swapped(plan, n))


@derived
def gathers_copies(plan: Plan) -> bool:
    """True if a gathered stage-3 parameter is more than this rank's partition itself."""
    return plan.dp_world_size > 1 or plan.param_device is not Device.GPU


@derived
def has_grad_accum_attribute(plan: Plan) -> bool:
    """Gradients accumulate whole, in an attribute of each tensor (stage_1_and_2.py:400-408)."""
    is_apart = plan.grad_accum_dtype != plan.model_dtype
    return plan.wrapper is Wrapper.ZERO12 and plan.stage == 1 and is_apart


@derived
def has_compact_gradients(plan: Plan) -> bool:
    """Reduced gradients of every group are compact."""
    return _accumulates_fp32(plan) and plan.optimizer.name != "MuonWithAuxAdam"


@derived
def is_compact_group(plan: Plan) -> tuple[bool, ...]:
    """Which groups' reduced gradients are one fp32 buffer of the partition's size.

    Muon's are not (stage_1_and_2.py:1259).
    """
    accumulates_fp32 = _accumulates_fp32(plan)
    return tuple(accumulates_fp32 and not row.newton_schulz for row in plan.group_optimizers)


def _accumulates_fp32(plan: Plan) -> bool:
    return plan.grad_accum_dtype is DType.FP32 is not plan.model_dtype


@derived
def flattens_on_gpu(plan: Plan) -> bool:
    """True if the GPU has room for model and flat copy (stage_1_and_2.py:451-453)."""
    weights = num_bytes(num_trainable(plan) + sum(frozen(plan)), plan.model_dtype)
    weights += sum(frozen_codes(plan))
    flat = num_bytes(sum(flat_groups(plan)), plan.model_dtype)
    return plan.gpu_memory is None or plan.gpu_memory - weights >= flat
