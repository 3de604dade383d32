"""Features beyond plain ZeRO: does the cluster suit them, are they modelled?"""

from collections.abc import Iterator
from dataclasses import replace

from zero_sizer.checks.context import OFFLOAD_OPTIMIZER, ZERO, Context, Rule
from zero_sizer.findings import Direction, Finding

NOT_MODELLED = "not-modelled"
_HPZ = ZERO + "zero_hpz_partition_size"
_GRANULARITY = ZERO + "stage3_module_granularity_threshold"
_TENSOR = "tensor_parallel.autotp_size"
_COST, _SAVE, _EITHER = Direction.COST, Direction.SAVE, Direction.EITHER
_ALL = ""  # devices

# Key that switches a feature on -> what to call it, what it can change, on which device.
_SECTIONS = {
    "expert_parallel.enabled": ("expert parallelism (AutoEP)", _EITHER, _ALL),
    ZERO + "zenflow": ("ZenFlow", _COST, _ALL),
    "compile.deepcompile": ("DeepCompile", _EITHER, _ALL),
    "hybrid_engine.enabled": ("the hybrid engine", _COST, _ALL),
    "data_efficiency.data_routing.random_ltd.enabled": (
        "random layer-token dropping",
        _SAVE,
        "gpu",
    ),
}
_STAGE_3 = {
    OFFLOAD_OPTIMIZER + "super_offload": ("SuperOffload", _EITHER, _ALL),
    ZERO + "zero_quantized_weights": ("quantized weight gathering (ZeRO++)", _EITHER, "gpu"),
    ZERO + "zero_quantized_nontrainable_weights": (
        "quantized frozen weights (ZeRO++)",
        _EITHER,
        _ALL,
    ),
    ZERO + "zero_quantized_gradients": ("quantized gradients (ZeRO++)", _EITHER, "gpu"),
}
_ABOVE_ONE = {
    _TENSOR: ("tensor parallelism (AutoTP)", _EITHER, _ALL),
    "sequence_parallel_size": ("sequence parallelism (Ulysses)", _EITHER, "gpu"),
    "pipeline.stages": ("pipeline parallelism", _EITHER, _ALL),
}
_LEAVES = ("making leaf modules of small ones", _COST, "gpu")


def not_modelled(context: Context) -> Iterator[Finding]:
    """Says what the prediction leaves out, so that nobody takes it for an answer."""
    features = {**_SECTIONS, **(_STAGE_3 if context.stage == 3 else {})}
    for key, feature in features.items():
        if context.flag(key):
            yield _unmodelled(context, key, *feature)
    for key, feature in _ABOVE_ONE.items():
        if (context.number(key) or 0) > 1:
            yield _unmodelled(context, key, *feature)
    if context.stage == 3 and (context.number(_GRANULARITY) or 0) > 0:
        yield _unmodelled(context, _GRANULARITY, *_LEAVES)


def _unmodelled(
    context: Context, key: str, name: str, direction: Direction, device: str
) -> Finding:
    found = context.warning(
        NOT_MODELLED,
        key,
        f"{name} is not modelled: the prediction is for the same job without it",
        "ask the simulated or launched dry run",
    )
    return replace(found, direction=direction, device=device)


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
    tensor_parallel_groups,
    sequence_parallel_mesh,
    quantized_gradients_need_reduce_scatter,
)
