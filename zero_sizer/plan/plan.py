"""The Plan: everything a formula may read, resolved once.

Every field names the config keys (or flags) it was resolved from in its metadata; ``Reads`` notes
which fields a formula touched, so an explanation of an allocation is what was read, not a copy
kept by hand.
"""

from collections.abc import Callable
from copy import copy
from dataclasses import field
from functools import wraps
from typing import Any, Self, TypeVar

from zero_sizer.config.workload import DYNAMIC, TRAINING, Checkpointing
from zero_sizer.hardware.device import Device
from zero_sizer.models.feeds.records import Feed
from zero_sizer.models.spec import ModelSpec
from zero_sizer.optimizers.table import Optimizer
from zero_sizer.units import DType
from zero_sizer.util.records import dataclass
from zero_sizer.zero.leaf_modules import LeafModules
from zero_sizer.zero.wrapper import Wrapper

T = TypeVar("T")


def _read(*keys: str) -> Any:
    """A field that was resolved from these config keys."""
    return field(metadata={"keys": keys})


def _read_or(value: Any, *keys: str) -> Any:
    """A field that most plans leave at ``value``."""
    return field(default=value, metadata={"keys": keys})


_Of = TypeVar("_Of")
_OPT = "zero_optimization.offload_optimizer."
_PAR = "zero_optimization.offload_param."
_ACT = "activation_checkpointing."
_IMAGES = ("images", "max_pixels", "min_pixels", "scaled_by")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One job, resolved. Numels are elements; everything is per rank unless it says otherwise."""

    model: ModelSpec = _read("model")
    stage: int = _read("zero_optimization.stage")
    wrapper: Wrapper = _read(
        "zero_optimization.stage", "bf16.enabled", "fp16.enabled", "optimizer.type"
    )
    dp_world_size: int = _read("nodes", "gpus_per_node")
    ranks_per_node: int = _read("gpus_per_node")
    rank: int = _read()  # whose memory is meant: see ``at_rank``

    model_dtype: DType = _read("bf16.enabled", "fp16.enabled")
    grad_accum_dtype: DType = _read("data_types.grad_accum_dtype", "bf16.enabled", "fp16.enabled")
    comm_dtype: DType = _read("communication_data_type", "bf16.enabled", "fp16.enabled")
    master_dtype: DType = _read(
        "bf16.bf16_master_weights_and_grads", "fp16.fp16_master_weights_and_grads"
    )
    moments_dtype: DType = _read("bf16.bf16_optimizer_states", "optimizer.params")
    autocast_dtype: DType | None = _read("torch_autocast.enabled", "torch_autocast.dtype")
    built_dtype: DType = _read("model")

    optimizer: Optimizer = _read("optimizer.type", "optimizer.params", _OPT + "device")
    optimizer_device: Device = _read(_OPT + "device")
    optimizer_pinned: bool = _read(_OPT + "pin_memory")
    optimizer_ratio: float = _read(_OPT + "ratio")
    optimizer_buffer_count: int = _read(_OPT + "buffer_count")
    optimizer_pipelines: int = _read(_OPT + "pipeline_read", _OPT + "pipeline_write")
    param_device: Device = _read(_PAR + "device")
    param_pinned: bool = _read(_PAR + "pin_memory")
    param_buffer_count: int = _read(_PAR + "buffer_count")
    param_buffer_size: int = _read(_PAR + "buffer_size")
    param_max_in_cpu: int = _read(_PAR + "max_in_cpu")
    aio_block_size: int = _read("aio.block_size")
    aio_parallelism: int = _read("aio.intra_op_parallelism")

    reduce_bucket_size: int = _read("zero_optimization.reduce_bucket_size")
    overlap_comm: bool = _read("zero_optimization.overlap_comm")
    contiguous_gradients: bool = _read("zero_optimization.contiguous_gradients")
    reduce_scatter: bool = _read("zero_optimization.reduce_scatter")
    keeps_momentum: bool = _read("zero_optimization.save_muon_momentum_buffer_in_memory")
    prescale_gradients: bool = _read("prescale_gradients")
    gradient_predivide_factor: float = _read("gradient_predivide_factor")
    multi_rank_allreduce: bool = _read("zero_optimization.use_multi_rank_bucket_allreduce")
    align_tensors: bool = _read("zero_optimization.parameter_alignment")
    round_robin: bool = _read("zero_optimization.round_robin_gradients")
    immediate_grad_update: bool = _read("bf16.immediate_grad_update")
    sub_group_size: int = _read("zero_optimization.sub_group_size")
    prefetch_bucket_size: int = _read("zero_optimization.stage3_prefetch_bucket_size")
    persistence_threshold: int = _read("zero_optimization.stage3_param_persistence_threshold")
    model_persistence_threshold: int = _read("zero_optimization.stage3_model_persistence_threshold")
    max_live_parameters: int = _read("zero_optimization.stage3_max_live_parameters")
    max_reuse_distance: int = _read("zero_optimization.stage3_max_reuse_distance")
    saves_linear_inputs: bool = _read(
        "zero_optimization.memory_efficient_linear", "zero_optimization.stage"
    )
    hpz_partition_size: int = _read("zero_optimization.zero_hpz_partition_size")
    leaf_modules: LeafModules = _read("zero_optimization.leaf_module", "zero_optimization.stage")
    gradient_clipping: float = _read("gradient_clipping")
    gathers_on_save: bool = _read("zero_optimization.stage3_gather_16bit_weights_on_model_save")

    grad_accum: int = _read("gradient_accumulation_steps")
    micro_batch: int = _read("train_micro_batch_size_per_gpu")
    seq_len: int = _read("seq_len")
    feed: Feed | None = _read("model", *_IMAGES, "audio_seconds", "target_len")
    checkpointing: bool = _read("checkpointing")
    checkpointing_how: Checkpointing = _read("checkpointing")
    cpu_checkpointing: bool = _read(_ACT + "cpu_checkpointing")
    partition_activations: bool = _read(_ACT + "partition_activations")
    contiguous_checkpoints: int = _read(
        _ACT + "contiguous_memory_optimization", _ACT + "number_checkpoints"
    )
    attention: str = _read("attention")
    attention_kernel: str | None = _read("attention_kernel")
    sequences: str = _read("sequences")
    loss: str = _read("loss", "kernels")
    kernels: str | None = _read("kernels")
    deepspeed_version: str | None = _read("deepspeed_version")
    zero_init: bool = _read("zero_init", "zero_optimization.stage")
    loaded_on: str = _read("loaded_on")
    blas_workspace: int = _read("gpu")  # bytes
    gpu_memory: int | None = _read("gpu_memory")

    task: str = _read_or(TRAINING, "task")
    new_tokens: int = _read_or(0, "new_tokens")
    cache: str = _read_or(DYNAMIC, "cache")
    tp_size: int = _read_or(1, "tensor_parallel.tp_size")

    group_names: tuple[str, ...] = _read("optimizer.type")
    group_indices: tuple[tuple[int, ...], ...] = _read("model", "optimizer.type")
    group_optimizers: tuple[Optimizer, ...] = _read("optimizer.type")

    def at_rank(self, rank: int) -> Self:
        """Copies the plan to another rank; what all ranks share is not worked out again."""
        other = copy(self)
        shared = {f: v for f, v in vars(self).get("_derived", {}).items() if f not in _OF_ONE_RANK}
        vars(other).update(rank=rank, _derived=shared)
        return other

    @property
    def itemsize(self) -> int:
        """Bytes per element of the model dtype."""
        return self.model_dtype.itemsize

    @property
    def is_16bit(self) -> bool:
        """True if the engine casts the model to fp16 or bf16."""
        return self.model_dtype is not DType.FP32

    @property
    def accumulates(self) -> bool:
        """True if gradients outlive a micro step."""
        return self.grad_accum > 1

    @property
    def offloads_optimizer(self) -> bool:
        """True if the optimizer works in host memory."""
        return self.optimizer_device is not Device.GPU

    def derive(self, function: "Callable[[Plan], T]") -> "T":
        """Computes ``function`` of this plan, once (see ``derived``)."""
        known = self.__dict__.setdefault("_derived", {})
        if function not in known:
            known[function] = function(self)
        found: T = known[function]
        return found


_OF_ONE_RANK: set[Callable[[Plan], Any]] = set()
"""Derived functions that read the rank: a plan at another rank computes them anew."""


def derived(function: Callable[[Plan], T]) -> Callable[[Plan], T]:
    """Decorates a function of a plan alone: each plan computes it once.

    ``Reads`` notes which config keys it read, nested derived values included.
    """

    @wraps(function)
    def ask(plan: Plan) -> T:
        return plan.derive(function)

    return ask


def derived_of_rank(function: Callable[[Plan], T]) -> Callable[[Plan], T]:
    """Decorates a derived function that reads the plan's rank."""
    _OF_ONE_RANK.add(function)
    return derived(function)
