"""Rules about a model's shapes: heads, experts and partitions that do not divide."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from zero_sizer.config.context import ZERO, Context, Rule
from zero_sizer.findings import Finding
from zero_sizer.models import attention
from zero_sizer.parallel import SEQUENCE, TENSOR
from zero_sizer.zero.partition import tensor_partition

if TYPE_CHECKING:
    from zero_sizer.models.spec import Tensor


_GROUP = 8  # elements that the kernel quantizes at once
# Presets whose router logits are recorded through transformers' hooks.
_RECORDED = ("mixtral", "qwen2_moe", "qwen3_moe")


def sequence_parallel_heads(context: Context) -> Iterator[Finding]:
    """runtime/sequence_parallel/ulysses_sp.py:147-152."""
    size = context.number(SEQUENCE)
    arch = None if context.model is None else context.model.arch
    if size is None or size <= 1 or arch is None or not arch.heads:
        return
    kv_heads = arch.kv_heads or arch.heads
    goes_with = f" and goes with {kv_heads}" if kv_heads != arch.heads else ""
    if arch.heads % size:
        reason = f"{arch.heads} attention heads do not divide among {size:g} ranks"
    elif kv_heads % size and size % kv_heads:
        reason = f"neither do {kv_heads} key-value heads divide among {size:g} ranks, nor these "
        reason += "among the heads"
    else:
        return
    yield context.error(
        "sequence-parallel-heads",
        SEQUENCE,
        f"ValueError as soon as Ulysses attention is set up: {reason}",
        f"take a size that divides {arch.heads}{goes_with}",
    )


def tensor_parallel_heads(context: Context) -> Iterator[Finding]:
    """engine.py:1043-1052, module_inject/tp_shard.py: attention is cut by whole key-value heads.

    transformers 5.23 integrations/flash_attention.py:52 refuses a rank without any.
    """
    size = context.number(TENSOR)
    arch = None if context.model is None else context.model.arch
    heads = (arch.kv_heads or arch.heads) if arch is not None else None
    if size is None or size <= 1 or not heads or not heads % size:
        return
    if size > heads:
        message = f"only the first {heads} of {size:g} ranks hold attention weights: AutoTP cuts "
        message += f"them by whole key-value heads, and there are {heads}"
        if context.workload.attention == attention.FLASH:
            message = f"ValueError: flash attention takes no empty tensors, and {message}"
            remedy = f"take a size that divides {heads}, or sdpa"
            yield context.error("tensor-parallel-heads", TENSOR, message, remedy)
            return
    else:
        message = f"{heads} key-value heads do not divide among {size:g} ranks: the first ranks "
        message += "hold more than the others"
    yield context.warning(
        "tensor-parallel-heads", TENSOR, message, f"take a size that divides {heads}"
    )


def expert_hooks(context: Context) -> Iterator[Finding]:
    """module_inject/auto_ep_presets/base.py:325; transformers 5.23 utils/output_capturing.py:48."""
    family = "" if context.model is None else context.model.arch.family
    if context.flag("expert_parallel.enabled") and family in _RECORDED:
        yield context.error(
            "expert-parallel-transformers",
            "expert_parallel.enabled",
            f"TypeError: AutoEP of DeepSpeed 0.19.8 cannot replace the experts of {family} under "
            "transformers 5.23, whose registry of recorded outputs takes no default",
            "use an older transformers, or delete expert_parallel",
        )


def without_dimensions(context: Context) -> Iterator[Finding]:
    """engine.py:2059, partition_parameters.py:1204: each parameter is broadcast as bytes.

    torch views no tensor without dimensions as another dtype. Seen on a real engine of 0.19.8 at
    every stage, on one rank too.
    """
    model = context.model
    found = [t for t in model.parameters if t.module_type and not t.shape] if model else []
    if model is None or not found:
        return
    name = found[0].name
    init = ", which zero.Init must not build: at stage 3 reshape it in the class"
    yield context.error(
        "parameter-without-dimensions",
        "--model",
        f"RuntimeError in deepspeed.initialize: DeepSpeed 0.19.8 broadcasts every parameter as "
        f"bytes, and torch views {name} of {model.name}, which has no dimensions, as no other "
        "dtype (self.dim() cannot be 0)",
        "give it one before the engine is made: "
        f"model.{name} = torch.nn.Parameter(model.{name}.detach().reshape(1))"
        f"{init if context.stage == 3 else ''}",
    )


def quantized_partitions(context: Context) -> Iterator[Finding]:
    """partition_parameters.py:883: what a module gathers at once is quantized in groups of 8.

    The first forward gathers module by module: no trace says yet what comes next.
    """
    key = ZERO + "zero_quantized_weights"
    model, ranks = context.model, context.cluster.world_size
    if context.stage != 3 or not context.flag(key) or model is None or ranks == 1:
        return
    gathered: dict[str, list[Tensor]] = {}
    for tensor in model.parameters:
        gathered.setdefault(tensor.module, []).append(tensor)
    numels = {
        module: sum(tensor_partition(tensor.numel, ranks) for tensor in tensors)
        for module, tensors in gathered.items()
        if "expert" not in module  # experts may be gathered all at once, with their block
    }
    odd = [module for module, numel in numels.items() if numel % _GROUP]
    if odd and model.exact_tensors:
        name, numel = gathered[odd[0]][0].name, numels[odd[0]]
        yield _not_in_groups(context, key, name, numel, len(odd))


def quantized_frozen_partitions(context: Context) -> Iterator[Finding]:
    """partition_parameters.py:1836-1845: frozen tensors are quantized as they are partitioned."""
    key = ZERO + "zero_quantized_nontrainable_weights"
    model, ranks = context.model, context.cluster.world_size
    if context.stage != 3 or not context.flag(key) or model is None:
        return
    numels = {t.name: tensor_partition(t.numel, ranks) for t in model.parameters if not t.trainable}
    odd = [name for name, numel in numels.items() if numel % _GROUP]
    if odd and model.exact_tensors:
        yield _not_in_groups(context, key, odd[0], numels[odd[0]], len(odd))


def _not_in_groups(context: Context, key: str, name: str, numel: int, count: int) -> Finding:
    ranks = context.cluster.world_size
    more = f", and {count - 1} more like it" if count > 1 else ""
    return context.error(
        "quantized-partitions",
        key,
        f"AssertionError: a rank's partition is quantized in groups of {_GROUP}, and 1/{ranks} of "
        f"{name} has {numel:,} elements{more}",
        "take a number of ranks that leaves multiples of 8, or delete the key",
    )


RULES: tuple[Rule, ...] = (
    sequence_parallel_heads,
    tensor_parallel_heads,
    expert_hooks,
    without_dimensions,
    quantized_partitions,
    quantized_frozen_partitions,
)
