"""Features beyond plain ZeRO: does the cluster suit them, are they modelled?"""

from collections.abc import Iterator

from zero_sizer.config.context import OFFLOAD_OPTIMIZER, ZERO, Context, Rule, left_out
from zero_sizer.findings import Direction, Finding
from zero_sizer.parallel import SEQUENCE, TENSOR

NOT_MODELLED = "not-modelled"
_GRANULARITY = ZERO + "stage3_module_granularity_threshold"


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
    ZERO + "zero_quantized_weights": ("quantized weight gathering (ZeRO++)", _COST, "gpu"),
    ZERO + "zero_quantized_nontrainable_weights": (
        "quantized frozen weights (ZeRO++)",
        _EITHER,
        _ALL,
    ),
    ZERO + "zero_quantized_gradients": ("quantized gradients (ZeRO++)", _EITHER, "gpu"),
}
# Key that says over how many ranks. Each divides something and adds something: tensors that AutoTP
# does not split are partitioned over fewer ranks (utils/groups.py:202-236), keys and values are
# repeated for Ulysses (runtime/sequence_parallel/ulysses_sp.py:186), a pipeline keeps the inputs of
# several micro batches (runtime/pipe/schedule.py: num_pipe_buffers).
_ABOVE_ONE = {
    TENSOR: ("tensor parallelism (AutoTP)", _EITHER, _ALL),
    SEQUENCE: ("sequence parallelism (Ulysses)", _EITHER, "gpu"),
    "pipeline.stages": ("pipeline parallelism", _EITHER, _ALL),
}
_LEAVES = ("making leaf modules of small ones", _COST, "gpu")
# A config alone does not start these: the training script does.
_BY_SCRIPT = (SEQUENCE, "pipeline.stages")


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
    moves = {_COST: "needs more", _SAVE: "needs less", _EITHER: "may need more or less"}
    how = (
        "run the training script, which sets it up: zero-sizer dryrun --how simulated -- train.py"
        if key in _BY_SCRIPT
        else "ask the simulated or launched dry run"
    )
    finding = context.warning(
        NOT_MODELLED,
        key,
        f"{name} is not modelled: the prediction is for the same job without it; with it the "
        f"job {moves[direction]}",
        how,
    )
    return left_out(finding, direction, device=device)


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
    quantized_gradients_need_reduce_scatter,
)
