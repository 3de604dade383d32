"""Groups of ranks: do they divide the world, the heads and the experts?"""

from collections.abc import Iterator

from zero_sizer.config.context import ZERO, Context, Rule
from zero_sizer.findings import Finding

_HPZ = ZERO + "zero_hpz_partition_size"
_TENSOR = "tensor_parallel.autotp_size"
_SEQUENCE = "sequence_parallel_size"
_EXPERT = "expert_parallel.autoep_size"


def hpz_groups(context: Context) -> Iterator[Finding]:
    """utils/groups.py:944."""
    size, world = context.number(_HPZ), context.cluster.world_size
    if context.stage != 3 or size is None or size <= 1:
        return
    if world % min(int(size), world):
        yield context.error(
            "hpz-world-size",
            _HPZ,
            f"AssertionError: {world} ranks do not divide into groups of {size:g}",
            "use the number of GPUs in a node",
        )
    elif size != context.cluster.gpus_per_node and world > size:
        yield context.note(
            "hpz-across-nodes",
            _HPZ,
            f"groups of {size:g} are not the {context.cluster.gpus_per_node} GPUs of a node, "
            "within which the second copy is meant to be gathered",
            f"set it to {context.cluster.gpus_per_node}",
        )


def hpz_on_nvme(context: Context) -> Iterator[Finding]:
    """partition_parameters.py:1915: the secondary partition is made on the device of the first."""
    size = context.number(_HPZ)
    if context.stage == 3 and size is not None and size > 1 and context.param_device == "nvme":
        yield context.error(
            "hpz-nvme",
            _HPZ,
            "RuntimeError: secondary partitions cannot be made on nvme, where offload_param puts "
            "the first ones",
            f"delete it, or set {ZERO}offload_param.device to cpu",
        )


def tensor_parallel_groups(context: Context) -> Iterator[Finding]:
    """utils/groups.py:202: ranks form a mesh of data-parallel x tensor-parallel."""
    size, world = context.number(_TENSOR), context.cluster.world_size
    if size is not None and size > 1 and world % size:
        yield context.error(
            "tensor-parallel-world-size",
            _TENSOR,
            f"AssertionError or RuntimeError: {world} ranks do not divide into groups of {size:g}",
            "use a divisor of the number of ranks",
        )


def sequence_parallel_mesh(context: Context) -> Iterator[Finding]:
    """deepspeed/__init__.py:541."""
    sizes = [context.number(f"{name}_parallel_size") for name in ("data", "sequence")]
    world = context.cluster.world_size
    if None not in sizes and (sizes[0] or 0) * (sizes[1] or 0) != world:
        yield context.error(
            "sequence-parallel-world-size",
            "sequence_parallel_size",
            f"RuntimeError: data_parallel_size x sequence_parallel_size is not the {world} ranks",
            "make the product the number of ranks",
        )


def sequence_parallel_alone(context: Context) -> Iterator[Finding]:
    """deepspeed/__init__.py:541 asks for both keys; config.py:468 divides the batch by this one."""
    size = context.number(_SEQUENCE)
    if size is None or size <= 1 or context.number("data_parallel_size") is not None:
        return
    world = context.cluster.world_size
    apart = f", into which {world} ranks do not divide" if world % size else ""
    yield context.warning(
        "sequence-parallel-alone",
        _SEQUENCE,
        f"alone it splits no sequence: DeepSpeed reads it only to count train_batch_size for "
        f"groups of {size:g} ranks{apart}",
        "the training script must pass the groups (mpu of UlyssesSPAttentionHF, accelerate's "
        "ParallelismConfig), or add data_parallel_size",
    )


def tensor_parallel_twice(context: Context) -> Iterator[Finding]:
    """engine.py:1020."""
    outer, inner = context.number(_TENSOR), context.number("tensor_parallel.tp.tp_size")
    if outer and outer > 1 and inner is not None and inner not in (1, outer):
        yield context.error(
            "tensor-parallel-size",
            "tensor_parallel.tp.tp_size",
            f"ValueError: {inner:g} does not match autotp_size, {outer:g}",
            "delete it; autotp_size says it",
        )


def expert_groups(context: Context) -> Iterator[Finding]:
    """module_inject/auto_ep_config.py:258, 349-385."""
    size, world = context.number(_EXPERT), context.cluster.world_size
    if not context.flag("expert_parallel.enabled") or size is None or size <= 1:
        return
    experts = 0 if context.model is None else context.model.arch.num_experts
    for count, what in ((world, "ranks"), (experts, "experts")):
        if count % size:
            yield context.error(
                "expert-parallel-size",
                _EXPERT,
                f"ValueError: {count} {what} do not divide into groups of {size:g}",
                f"take a divisor of {count}",
            )


RULES: tuple[Rule, ...] = (
    hpz_groups,
    hpz_on_nvme,
    tensor_parallel_groups,
    tensor_parallel_twice,
    sequence_parallel_mesh,
    sequence_parallel_alone,
    expert_groups,
)
