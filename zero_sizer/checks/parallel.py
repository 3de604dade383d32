"""Features beyond plain ZeRO: does the cluster suit them, are they modelled?"""

from collections.abc import Iterator

from zero_sizer.checks.context import OFFLOAD_OPTIMIZER, ZERO, Context, Rule
from zero_sizer.findings import Finding

NOT_MODELLED = "not-modelled"
_HPZ = ZERO + "zero_hpz_partition_size"
_GRANULARITY = ZERO + "stage3_module_granularity_threshold"
_TENSOR = "tensor_parallel.autotp_size"
_SECTIONS = {  # key that switches a feature on -> what to call it
    "expert_parallel.enabled": "expert parallelism (AutoEP)",
    ZERO + "zenflow": "ZenFlow",
    "compile.deepcompile": "DeepCompile",
    "hybrid_engine.enabled": "the hybrid engine",
    "data_efficiency.data_routing.random_ltd.enabled": "random layer-token dropping",
}
_STAGE_3 = {
    OFFLOAD_OPTIMIZER + "super_offload": "SuperOffload",
    ZERO + "zero_quantized_weights": "quantized weight gathering (ZeRO++)",
    ZERO + "zero_quantized_nontrainable_weights": "quantized frozen weights (ZeRO++)",
    ZERO + "zero_quantized_gradients": "quantized gradients (ZeRO++)",
}


def not_modelled(context: Context) -> Iterator[Finding]:
    """Says what the prediction leaves out, so that nobody takes it for an answer."""
    features = dict(_SECTIONS)
    if context.stage == 3:
        features |= _STAGE_3
    for key, name in features.items():
        if context.flag(key):
            yield _unmodelled(context, key, name)
    for key, name in (
        (_TENSOR, "tensor parallelism (AutoTP)"),
        ("sequence_parallel_size", "sequence parallelism (Ulysses)"),
        ("pipeline.stages", "pipeline parallelism"),
    ):
        if (context.number(key) or 0) > 1:
            yield _unmodelled(context, key, name)
    if context.stage == 3 and (context.number(_GRANULARITY) or 0) > 0:
        yield _unmodelled(context, _GRANULARITY, "making leaf modules of small ones")


def _unmodelled(context: Context, key: str, name: str) -> Finding:
    return context.warning(
        NOT_MODELLED,
        key,
        f"{name} is not modelled: the prediction is for the same job without it",
        "ask the simulated or launched dry run",
    )


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


def quantized_gradients_need_reduce_scatter(context: Context) -> Iterator[Finding]:
    """stage3.py:390."""
    key = ZERO + "zero_quantized_gradients"
    if context.stage == 3 and context.flag(key) and not context.flag(ZERO + "reduce_scatter"):
        yield context.error(
            "quantized-gradients",
            key,
            "AssertionError: needs reduce_scatter, which is off",
            f"delete {ZERO}reduce_scatter",
        )


RULES: tuple[Rule, ...] = (
    not_modelled,
    hpz_groups,
    hpz_on_nvme,
    tensor_parallel_groups,
    sequence_parallel_mesh,
    quantized_gradients_need_reduce_scatter,
)
