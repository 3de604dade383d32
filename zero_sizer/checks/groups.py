"""Groups of ranks: do they divide the world, the heads and the experts?"""

from collections.abc import Iterator

from zero_sizer.config.context import ZERO, Context, Rule
from zero_sizer.findings import Finding
from zero_sizer.parallel import DATA, EXPERT, HPZ, SEQUENCE, TENSOR, ParallelDims


def groups_of_ranks(context: Context) -> Iterator[Finding]:
    """Groups that do not fit the ranks of the job."""
    for problem in _ranks(context).problems():
        yield context.placed(problem)


def _ranks(context: Context) -> ParallelDims:
    """The ranks with every group that DeepSpeed would form."""
    data, sequence = context.number(DATA), context.number(SEQUENCE)
    has_experts = context.flag("expert_parallel.enabled")
    return ParallelDims(
        world_size=context.cluster.world_size,
        ranks_per_node=context.cluster.gpus_per_node,
        dp=None if sequence is None else data,
        tp=context.number(TENSOR) or 1,
        sp=1 if sequence is None else sequence,
        ep=(context.number(EXPERT) if has_experts else None) or 1,
        hpz=int((context.number(HPZ) if context.stage == 3 else None) or 1),
    )


def hpz_on_nvme(context: Context) -> Iterator[Finding]:
    """partition_parameters.py:1915: the secondary partition is made on the device of the first."""
    size = context.number(HPZ)
    if context.stage == 3 and size is not None and size > 1 and context.param_device == "nvme":
        yield context.error(
            "hpz-nvme",
            HPZ,
            "RuntimeError: secondary partitions cannot be made on nvme, where offload_param puts "
            "the first ones",
            f"delete it, or set {ZERO}offload_param.device to cpu",
        )


def sequence_parallel_alone(context: Context) -> Iterator[Finding]:
    """deepspeed/__init__.py:541 asks for both keys; config.py:468 divides the batch by this one."""
    size, ranks = context.number(SEQUENCE), _ranks(context)
    if size is None or size <= 1 or context.number(DATA) is not None:
        return
    apart = "" if ranks.divides("sp") else f", into which {ranks.world_size} ranks do not divide"
    yield context.warning(
        "sequence-parallel-alone",
        SEQUENCE,
        f"alone it splits no sequence: DeepSpeed reads it only to count train_batch_size for "
        f"groups of {size:g} ranks{apart}",
        "the training script must pass the groups (mpu of UlyssesSPAttentionHF, accelerate's "
        "ParallelismConfig), or add data_parallel_size",
    )


def tensor_parallel_twice(context: Context) -> Iterator[Finding]:
    """engine.py:1020."""
    outer, inner = context.number(TENSOR), context.number("tensor_parallel.tp.tp_size")
    if outer and outer > 1 and inner is not None and inner not in (1, outer):
        yield context.error(
            "tensor-parallel-size",
            "tensor_parallel.tp.tp_size",
            f"ValueError: {inner:g} does not match autotp_size, {outer:g}",
            "delete it; autotp_size says it",
        )


def expert_groups(context: Context) -> Iterator[Finding]:
    """module_inject/auto_ep_config.py:349-385."""
    size = context.number(EXPERT)
    if not context.flag("expert_parallel.enabled") or size is None or size <= 1:
        return
    experts = 0 if context.model is None else context.model.arch.num_experts
    if experts % size:
        yield context.error(
            "expert-parallel-size",
            EXPERT,
            f"ValueError: {experts} experts do not divide into groups of {size:g}",
            f"take a divisor of {experts}",
        )


RULES: tuple[Rule, ...] = (
    groups_of_ranks,
    hpz_on_nvme,
    tensor_parallel_twice,
    sequence_parallel_alone,
    expert_groups,
)
