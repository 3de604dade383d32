"""Offloading: staging and gradient buffers in host memory, swap pools and NVMe files."""

from functools import lru_cache
from operator import add

from zero_sizer.hardware.device import Device
from zero_sizer.ledger.entries.conditions import is_zero3, is_zero12, pieces_of
from zero_sizer.ledger.entries.states import from_first_step
from zero_sizer.ledger.entry import Category, Entry
from zero_sizer.ledger.moments import (
    AFTER_FIRST_STEP,
    ALWAYS,
    FROM_FLATTEN,
    FROM_LINKING,
    FROM_WRAPPING,
    Moment,
)
from zero_sizer.plan import sizes
from zero_sizer.plan.parallel import ranks_of
from zero_sizer.plan.plan import Plan
from zero_sizer.units import DType, next_power_of_two, num_bytes
from zero_sizer.zero import construction, partition

_SOURCE = "runtime/zero/stage_1_and_2.py:"


def _offloads12(plan: Plan) -> bool:
    return is_zero12(plan) and plan.offloads_optimizer


def _offloads3(plan: Plan) -> bool:
    return is_zero3(plan) and plan.offloads_optimizer


def _accumulated(plan: Plan) -> tuple[tuple[int, ...], ...]:
    """Groups whose gradients accumulate on the host: compact ones do in a buffer on the GPU."""
    pairs = zip(sizes.groups(plan), sizes.is_compact_group(plan), strict=True)
    return tuple(group for group, is_compact in pairs if not is_compact)


def _touched(plan: Plan) -> tuple[int, ...]:
    """Tensors of those groups that this rank's partitions touch, in elements."""
    return tuple(piece.numel for piece in pieces_of(plan, _accumulated(plan)))


def _touched_on_node(plan: Plan) -> int:
    """Bytes of those of all ranks of a node, of the node where they are most."""
    totals = [0] * plan.dp_world_size
    where = (plan.dp_world_size, plan.align_tensors, plan.itemsize)
    for group in (sizes.ordered(plan, group) for group in _accumulated(plan)):
        requested = _requested(group, plan.model_dtype, plan.optimizer_pinned)
        totals = list(map(add, totals, partition.touched(group, *where, requested)))
    nodes = ranks_of(plan).by_node()
    return max(sum(totals[ranks.start : ranks.stop]) for ranks in nodes)


def _accumulates_on_host(plan: Plan) -> bool:
    return (
        _offloads12(plan)
        and plan.stage == 2
        and plan.accumulates
        and plan.master_dtype is DType.FP32
        and not sizes.has_compact_gradients(plan)
        and not sizes.has_grad_accum_attribute(plan)
    )


def _being_pinned(plan: Plan, rank: int) -> int:
    """Bytes by which the first backward, which pins the buffers, is higher than later ones.

    The last gradient comes first. Optimizer states that the first step makes are not there yet.
    """
    return max(_beyond_pinned(plan, rank) - from_first_step(plan, Device.HOST), 0)


def _beyond_pinned(plan: Plan, rank: int) -> int:
    """Bytes by which it is higher where optimizer states are there."""
    where = (plan.dp_world_size, rank, plan.align_tensors, plan.itemsize)
    accumulated, made = _accumulated(plan), list[tuple[int, int]]()  # parameter, elements
    for group, order in zip(sizes.groups(plan), sizes.flat_order(plan), strict=True):
        if group in accumulated:
            numels = sizes.ordered(plan, group)
            made += [(order[i], numels[i]) for i in partition.touching(numels, *where)]
    made.sort()
    largest = max([numel for _, numel in made], default=0)
    parts = (num_bytes(numel, plan.model_dtype) for _, numel in made)
    return construction.beyond_pinned(parts, num_bytes(largest, plan.model_dtype))


def _being_pinned_on_node(plan: Plan) -> int:
    """Bytes of all ranks of the first node, or of the last: embedding and head are there."""
    nodes, states = list(ranks_of(plan).by_node()), from_first_step(plan, Device.HOST)
    return max(
        sum([max(_beyond_pinned(plan, rank) - states, 0) for rank in ranks])
        for ranks in {nodes[0], nodes[-1]}
    )


@lru_cache(maxsize=64)
def _requested(numels: tuple[int, ...], dtype: DType, is_pinned: bool) -> tuple[int, ...]:
    sizes = (num_bytes(numel, dtype) for numel in numels)
    return tuple(next_power_of_two(size) if is_pinned else size for size in sizes)


def _host_sub_groups(plan: Plan) -> tuple[int, ...]:
    first = sizes.num_on_gpu(plan)
    return tuple(n for n in sizes.partitions(plan)[first:] if not sizes.is_swapped(plan, n))


def _on_host(plan: Plan) -> tuple[int, ...]:
    """Partitions whose gradients are made on the host, one after the other."""
    return _host_sub_groups(plan) if is_zero3(plan) else sizes.partitions(plan)


def _made_so_far(plan: Plan) -> tuple[int, ...]:
    """Partitions up to the one at whose pinning most is held: its source and all before it."""
    sizes = _on_host(plan)
    if not plan.optimizer_pinned:
        return sizes
    pinned, most, count = 0, 0, 0
    for index, numel in enumerate(sizes):
        source = num_bytes(numel, plan.master_dtype)
        pinned += next_power_of_two(source)
        if pinned + source > most:
            most, count = pinned + source, index + 1
    return sizes[:count]


def _gpu_sub_groups(plan: Plan) -> tuple[int, ...]:
    return sizes.partitions(plan)[: sizes.num_on_gpu(plan)]


def _beyond_made_so_far(plan: Plan) -> int:
    """Bytes by which zeros for gradients on the GPU, made on the host, exceed those that stay.

    One buffer goes when the next one is there.
    """
    before = most = 0
    for numel in _gpu_sub_groups(plan):
        zeros = num_bytes(numel, plan.master_dtype)
        kept = next_power_of_two(zeros) if plan.optimizer_pinned else zeros
        most = max(most, before + zeros, zeros + (kept if plan.optimizer_pinned else 0))
        before = kept
    made = [num_bytes(numel, plan.master_dtype) for numel in _made_so_far(plan)]
    first = num_bytes(sum(_host_sub_groups(plan)[:1]), plan.master_dtype)
    stays = (
        sum(map(next_power_of_two, made)) + sum(made[-1:]) if plan.optimizer_pinned else sum(made)
    )
    return max(max(most, before + first) - stays, 0)


def _in_cpu_numel(plan: Plan) -> int:
    """Parameter elements kept in the pinned flat buffer; ``max_in_cpu`` is NVMe's limit only."""
    if plan.param_device is Device.NVME:
        return min(sizes.partition_numel(plan), plan.param_max_in_cpu)
    return sizes.partition_numel(plan)


ENTRIES = (
    Entry(
        name="single_partition_of_fp32_groups.grad_so_far",
        category=Category.GRADIENTS,
        about="gradients of the groups up to the one being made, when most is held",
        numel=_made_so_far,
        dtype=lambda p: p.master_dtype,
        live=frozenset({Moment.WRAPPING}),
        when=_offloads12,
        device=lambda p: Device.HOST,
        pinned=lambda p: p.optimizer_pinned,
        source=_SOURCE + "934-953",
    ),
    Entry(
        name="single_partition_of_fp32_groups.grad",
        category=Category.GRADIENTS,
        about="gradient of the master weights, in host memory from init on",
        numel=sizes.partitions,
        dtype=lambda p: p.master_dtype,
        live=FROM_LINKING,
        when=_offloads12,
        device=lambda p: Device.HOST,
        pinned=lambda p: p.optimizer_pinned,
        source=_SOURCE + "934-953",
    ),
    Entry(
        name="param_buffer_of_bit16_for_cpu_offload_groups",
        category=Category.OFFLOAD,
        about="staging for the updated 16-bit weights",
        numel=sizes.partitions,
        dtype=lambda p: p.model_dtype,
        live=FROM_WRAPPING,
        when=_offloads12,
        device=lambda p: Device.HOST,
        pinned=lambda p: p.optimizer_pinned,
        source=_SOURCE + "563-574",
    ),
    Entry(
        name="temp_grad_buffer_for_cpu_offload",
        category=Category.OFFLOAD,
        about="room for the largest gradient in host memory",
        numel=sizes.largest_tensor,
        dtype=lambda p: p.model_dtype,
        live=FROM_WRAPPING,
        when=_offloads12,
        device=lambda p: Device.HOST,
        pinned=lambda p: p.optimizer_pinned,
        source=_SOURCE + "653-658",
    ),
    Entry(
        name="temp_grad_buffer_for_gpu_offload",
        category=Category.COMMUNICATION,
        about="room for the largest gradient on the GPU",
        numel=sizes.largest_tensor,
        dtype=lambda p: p.model_dtype,
        live=FROM_WRAPPING,
        when=_offloads12,
        source=_SOURCE + "659-661",
    ),
    Entry(
        name="accumulated_grads_in_cpu",
        category=Category.GRADIENTS,
        about="accumulated gradients of the tensors this rank touches, one buffer each",
        numel=_touched,
        node_bytes=_touched_on_node,
        dtype=lambda p: p.model_dtype,
        live=AFTER_FIRST_STEP,
        when=_accumulates_on_host,
        device=lambda p: Device.HOST,
        pinned=lambda p: p.optimizer_pinned,
        source=_SOURCE + "1822-1827",
    ),
    Entry(
        name="accumulated_grad_being_pinned",
        category=Category.TEMPORARY,
        about="the ordinary tensor whose pinned copy takes accumulated gradients, in step one",
        numel=lambda p: _being_pinned(p, p.rank),
        node_bytes=_being_pinned_on_node,
        dtype=lambda p: DType.UINT8,  # counted in bytes: pinned ones are rounded up
        live=frozenset({Moment.BACKWARD}),
        when=lambda p: _accumulates_on_host(p) and p.optimizer_pinned,
        device=lambda p: Device.HOST,
        source=_SOURCE + "1822-1827",
    ),
    Entry(
        name="unpinned_sources",
        category=Category.TEMPORARY,
        about="ordinary tensors whose pinned copies are being made",
        numel=lambda p: sum(sizes.partitions(p)[-1:]),
        dtype=lambda p: p.model_dtype,
        live=frozenset({Moment.STAGING, Moment.WRAPPING}),
        when=lambda p: _offloads12(p) and p.optimizer_pinned,
        device=lambda p: Device.HOST,
        source=_SOURCE + "563-574",
    ),
    Entry(
        name="unpinned_temp_grad_buffer",
        category=Category.TEMPORARY,
        about="the ordinary tensor whose pinned copy is the room for the largest gradient",
        numel=sizes.largest_tensor,
        dtype=sizes.trained_dtype,
        live=frozenset({Moment.STAGING}),
        when=lambda p: _offloads12(p) and p.optimizer_pinned,
        device=lambda p: Device.HOST,
        source=_SOURCE + "653-658",
    ),
    Entry(
        name="unpinned_gradient",
        category=Category.TEMPORARY,
        about="zeros that become the pinned gradient",
        numel=lambda p: _made_so_far(p)[-1:],
        dtype=lambda p: p.master_dtype,
        live=frozenset({Moment.WRAPPING}),
        when=lambda p: p.offloads_optimizer and p.optimizer_pinned,
        device=lambda p: Device.HOST,
        source=_SOURCE + "934-953, runtime/zero/stage3.py:1332-1342",
    ),
    Entry(
        name="gradient_buffer_at_init",
        category=Category.TEMPORARY,
        about="a gradient of zeros of the largest sub-group, dropped after init",
        numel=lambda p: max(sizes.partitions(p), default=0),
        dtype=lambda p: p.master_dtype,
        live=frozenset({Moment.WRAPPING}),
        when=_offloads3,
        device=lambda p: Device.HOST,
        source="runtime/zero/stage3.py:1304-1306",
    ),
    Entry(
        name="unpinned_grad_partitions",
        category=Category.TEMPORARY,
        about="zeros that become the pinned gradient partitions",
        numel=sizes.partition_numel,
        dtype=lambda p: p.grad_accum_dtype,
        live=frozenset({Moment.LINKING}),
        when=lambda p: _offloads3(p) and p.optimizer_pinned,
        device=lambda p: Device.HOST,
        source="runtime/zero/stage3.py:791-795",
    ),
    Entry(
        name="fp32_partitioned_groups_flat.grad_so_far",
        category=Category.GRADIENTS,
        about="gradients of the sub-groups up to the one being made, when most is held",
        numel=_made_so_far,
        dtype=lambda p: p.master_dtype,
        live=frozenset({Moment.WRAPPING}),
        when=_offloads3,
        device=lambda p: Device.HOST,
        pinned=lambda p: p.optimizer_pinned,
        source="runtime/zero/stage3.py:1337-1342",
    ),
    Entry(
        name="fp32_partitioned_groups_flat.grad",
        category=Category.GRADIENTS,
        about="gradient of each sub-group's master weights, in host memory",
        numel=_host_sub_groups,
        dtype=lambda p: p.master_dtype,
        live=FROM_LINKING,
        when=_offloads3,
        device=lambda p: Device.HOST,
        pinned=lambda p: p.optimizer_pinned,
        source="runtime/zero/stage3.py:1337-1342",
    ),
    Entry(
        name="fp32_partitioned_groups_flat.grad_on_gpu",
        category=Category.GRADIENTS,
        about="gradient of the sub-groups that ratio < 1 leaves on the GPU",
        numel=_gpu_sub_groups,
        dtype=lambda p: p.master_dtype,
        live=FROM_WRAPPING,
        when=lambda p: _offloads3(p) and p.optimizer_ratio < 1,
        source="runtime/zero/stage3.py:1099-1108,1337-1342",
    ),
    Entry(
        name="zeros_of_gradients_on_gpu",
        category=Category.TEMPORARY,
        about="zeros made on the host for the gradients that ratio < 1 leaves on the GPU",
        numel=_beyond_made_so_far,
        dtype=lambda p: DType.UINT8,
        live=frozenset({Moment.WRAPPING}),
        when=lambda p: _offloads3(p) and sizes.num_on_gpu(p) > 0,
        device=lambda p: Device.HOST,
        source="runtime/zero/stage3.py:1337-1342",
    ),
    Entry(
        name="backup_optimizer_temporary",
        category=Category.TEMPORARY,
        about="square roots of second moments, in torch's AdamW on the sub-groups that ratio < 1 "
        "leaves on the GPU",
        numel=lambda p: max(_gpu_sub_groups(p), default=0),
        dtype=lambda p: p.master_dtype,
        live=frozenset({Moment.UPDATE}),
        when=lambda p: _offloads3(p) and sizes.num_on_gpu(p) > 0,
        source="runtime/zero/stage3.py:313; torch/optim/adam.py:_multi_tensor_adam",
    ),
    Entry(
        name="param_groups_fp16_flat_cpu_memory",
        category=Category.PARAMETERS,
        about="this rank's partition of every weight, offloaded; always pinned",
        numel=_in_cpu_numel,
        dtype=sizes.trained_dtype,
        live=FROM_FLATTEN,
        when=lambda p: is_zero3(p) and p.param_device is not Device.GPU,
        device=lambda p: Device.HOST,
        pinned=lambda p: True,
        source="runtime/zero/stage3.py:889-912",
    ),
    Entry(
        name="unpinned_flat_weights",
        category=Category.TEMPORARY,
        about="the ordinary tensor whose pinned copy is the flat buffer of offloaded weights",
        numel=_in_cpu_numel,
        dtype=sizes.trained_dtype,
        live=frozenset({Moment.FLATTEN}),
        when=lambda p: is_zero3(p) and p.param_device is not Device.GPU,
        device=lambda p: Device.HOST,
        source="runtime/zero/stage3.py:906-907",
    ),
    Entry(
        name="param_swap_files",
        category=Category.PARAMETERS,
        about="parameter partitions on NVMe, written at init",
        numel=sizes.partition_numel,
        dtype=lambda p: p.model_dtype,
        live=ALWAYS,
        when=lambda p: is_zero3(p) and p.param_device is Device.NVME,
        device=lambda p: Device.NVME,
        source="runtime/swap_tensor/partitioned_param_swapper.py",
    ),
)
