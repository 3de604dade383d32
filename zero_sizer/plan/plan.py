"""The Plan: everything a formula may read, resolved once.

Every field names the config keys (or flags) it was resolved from in its metadata; ``Reads`` notes
which fields a formula touched, so an explanation of an allocation is what was read, not a copy
kept by hand.
"""

from copy import copy
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from itertools import chain, compress
from typing import Any, Self, TypeVar

from zero_sizer.activations.checkpointing import Inputs
from zero_sizer.activations.levels import MicroStep
from zero_sizer.activations.masks import Mask
from zero_sizer.config.workload import Checkpointing
from zero_sizer.models.spec import ModelSpec
from zero_sizer.optimizers.table import Optimizer
from zero_sizer.timeline import compose, zero_rules
from zero_sizer.timeline.overlay import Zero
from zero_sizer.timeline.peaks import Timeline
from zero_sizer.units import CODES, DType, num_bytes
from zero_sizer.zero import partition
from zero_sizer.zero.leaf_modules import LeafModules
from zero_sizer.zero.wrapper import Wrapper


class Device(Enum):
    """Where bytes live. DeepSpeed's "cpu" is ``HOST``."""

    GPU = "gpu"
    HOST = "host"
    NVME = "nvme"

    __hash__ = object.__hash__  # members are unique; Enum's own hash is slow


def _read(*keys: str) -> Any:
    """A field that was resolved from these config keys."""
    return field(metadata={"keys": keys})


_Of = TypeVar("_Of")
_OPT = "zero_optimization.offload_optimizer."
_PAR = "zero_optimization.offload_param."
_ACT = "activation_checkpointing."


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
    optimizer_pipelined: bool = _read(_OPT + "pipeline_read", _OPT + "pipeline_write")
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
    checkpointing: bool = _read("checkpointing")
    checkpointing_how: Checkpointing = _read("checkpointing")
    cpu_checkpointing: bool = _read(_ACT + "cpu_checkpointing")
    partition_activations: bool = _read(_ACT + "partition_activations")
    contiguous_checkpoints: int = _read(
        _ACT + "contiguous_memory_optimization", _ACT + "number_checkpoints"
    )
    attention: str = _read("attention")
    sequences: str = _read("sequences")
    loss: str = _read("loss", "kernels")
    kernels: str | None = _read("kernels")
    zero_init: bool = _read("zero_init", "zero_optimization.stage")
    blas_workspace: int = _read("gpu")  # bytes
    gpu_memory: int | None = _read("gpu_memory")

    group_names: tuple[str, ...] = _read("optimizer.type")
    group_indices: tuple[tuple[int, ...], ...] = _read("model", "optimizer.type")
    group_optimizers: tuple[Optimizer, ...] = _read("optimizer.type")

    # --- sizes derived from the above -------------------------------------------------------

    @cached_property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Elements of the tensors of each param group."""
        return partition.grouped(self.numels, self.group_indices)

    @cached_property
    def frozen(self) -> tuple[int, ...]:
        """Elements of each tensor without ``requires_grad``, packed codes apart."""
        return self._frozen(codes=False)

    @cached_property
    def frozen_codes(self) -> tuple[int, ...]:
        """Bytes of each frozen tensor that holds packed codes in integers."""
        return self._frozen(codes=True)

    def _frozen(self, *, codes: bool) -> tuple[int, ...]:
        found = (t for t in self.model.parameters if not t.trainable)
        return tuple(t.numel for t in found if codes is (t.dtype in CODES))

    @cached_property
    def trainable(self) -> tuple[int, ...]:
        """Elements of each trainable tensor, group by group."""
        return tuple(chain.from_iterable(self.groups))

    @cached_property
    def largest_tensor(self) -> int:
        """Elements of the largest trainable tensor (n_max)."""
        return max(self.trainable, default=0)

    @cached_property
    def num_trainable(self) -> int:
        """Trainable elements, unpadded (Psi)."""
        return sum(self.trainable)

    @cached_property
    def flat_groups(self) -> tuple[int, ...]:
        """Elements of each ZeRO-1/2 flat group, padded (F)."""
        return tuple(
            partition.flat_numel(g, self.dp_world_size, self.align_tensors, self.itemsize)
            for g in self.groups
        )

    @cached_property
    def partitions(self) -> tuple[int, ...]:
        """Elements of each buffer the optimizer works on: per group (stages 0-2) or sub-group.

        Stage 0: the whole group. Stages 1-2: F/N. Stage 3: each sub-group's partitions.
        """
        match self.wrapper:
            case Wrapper.ZERO3:
                return tuple(sum(g) for groups in self.sub_groups for g in groups)
            case Wrapper.ZERO12 | Wrapper.BF16:
                return tuple(f // self.dp_world_size for f in self.flat_groups)
            case _:
                return tuple(sum(g) for g in self.groups)

    @cached_property
    def sub_groups(self) -> tuple[tuple[tuple[int, ...], ...], ...]:
        """Stage-3 sub-groups of each group, as partition sizes of their tensors."""
        return tuple(
            partition.sub_groups(g, self.dp_world_size, self.sub_group_size) for g in self.groups
        )

    @cached_property
    def partition_optimizers(self) -> tuple[Optimizer, ...]:
        """The optimizer row of each entry of ``partitions``."""
        counts = [len(s) for s in self.sub_groups] if self.stage == 3 else [1] * len(self.groups)
        return tuple(
            optimizer
            for optimizer, count in zip(self.group_optimizers, counts, strict=True)
            for _ in range(count)
        )

    @cached_property
    def partition_numel(self) -> int:
        """Elements this rank's optimizer owns: Psi, P or P3."""
        return sum(self.partitions)

    @cached_property
    def gradient_numel(self) -> int:
        """Elements of all gradients a ZeRO-1/2 rank keeps whole (Q), padding excluded."""
        return self.touched_numel(self.groups)

    def touched_numel(self, groups: tuple[tuple[int, ...], ...]) -> int:
        """Elements of all tensors of ``groups`` that this rank's ZeRO-1/2 partitions touch."""
        where = (self.dp_world_size, self.align_tensors, self.itemsize)
        touched = (partition.touched(self.ordered(group), *where) for group in groups)
        return sum(per_rank[self.rank] for per_rank in touched)

    def ordered(self, group: tuple[_Of, ...]) -> tuple[_Of, ...]:
        """A group in flat order."""
        return partition.round_robin(group, self.dp_world_size) if self.deals_tensors else group

    @cached_property
    def flat_order(self) -> tuple[tuple[int, ...], ...]:
        """Parameter indices of each ZeRO-1/2 group, as they lie in its flat buffer."""
        return tuple(self.ordered(group) for group in self.group_indices)

    @cached_property
    def deals_tensors(self) -> bool:
        """Whether tensors are dealt out to the ranks one by one; BF16_Optimizer does not."""
        return self.round_robin and self.wrapper is Wrapper.ZERO12

    def at_rank(self, rank: int) -> Self:
        """The same plan on another rank; what all ranks share is not worked out again."""
        other = copy(self)
        vars(other)["rank"] = rank
        for name in _OF_ONE_RANK:
            vars(other).pop(name, None)
        return other

    @cached_property
    def numels(self) -> tuple[int, ...]:
        """Elements of every parameter, frozen ones included, in order."""
        return self.model.numels

    @cached_property
    def dtypes(self) -> tuple[DType, ...]:
        """Dtype of every parameter in training; the engine casts to it (engine.py:1859)."""
        cast = {dtype: self._dtype_of(dtype) for dtype in set(self.model.dtypes)}
        return tuple(map(cast.__getitem__, self.model.dtypes))

    @cached_property
    def itemsizes(self) -> tuple[int, ...]:
        """Bytes per element of every parameter, in order."""
        return tuple([dtype.itemsize for dtype in self.dtypes])

    def _dtype_of(self, built: DType | None) -> DType:
        if built is None or (built.is_floating and not self._keeps_dtypes):
            return self.model_dtype
        return built

    @cached_property
    def _keeps_dtypes(self) -> bool:
        """Whether tensors made beside ``zero.Init``, as adapters are, stay in their own dtype."""
        return self.wrapper is Wrapper.ZERO3 and self.zero_init and self.model.adapter is not None

    @cached_property
    def trained_dtype(self) -> DType:
        """Dtype of the trainable tensors; DeepSpeed refuses several (zero/utils.py:217)."""
        return self.dtypes[self.group_indices[0][0]] if self.trainable else self.model_dtype

    @cached_property
    def is_persistent(self) -> tuple[bool, ...]:
        """Which stage-3 parameters stay gathered."""
        return partition.persistent(
            self.numels, self.persistence_threshold, self.model_persistence_threshold
        )

    @cached_property
    def persistent_bytes(self) -> int:
        """Bytes of the stage-3 parameters that stay gathered, each padded to the ranks."""
        kept = compress(zip(self.numels, self.itemsizes, strict=True), self.is_persistent)
        return sum([partition.padded(n, self.dp_world_size) * size for n, size in kept])

    @cached_property
    def gathers_copies(self) -> bool:
        """Whether a gathered stage-3 parameter is more than this rank's partition itself."""
        return self.dp_world_size > 1 or self.param_device is not Device.GPU

    @cached_property
    def itemsize(self) -> int:
        """Bytes per element of the model dtype."""
        return self.model_dtype.itemsize

    @cached_property
    def is_16bit(self) -> bool:
        """Whether the engine casts the model to fp16 or bf16."""
        return self.model_dtype is not DType.FP32

    @cached_property
    def accumulates(self) -> bool:
        """Whether gradients outlive a micro step."""
        return self.grad_accum > 1

    @cached_property
    def offloads_optimizer(self) -> bool:
        """Whether the optimizer works in host memory."""
        return self.optimizer_device is not Device.GPU

    @cached_property
    def has_grad_accum_attribute(self) -> bool:
        """Gradients accumulate whole, in an attribute of each tensor (stage_1_and_2.py:400-408)."""
        is_apart = self.grad_accum_dtype != self.model_dtype
        return self.wrapper is Wrapper.ZERO12 and self.stage == 1 and is_apart

    @cached_property
    def has_compact_gradients(self) -> bool:
        """Reduced gradients are one fp32 buffer, the partition's size (stage_1_and_2.py:1250)."""
        accumulates_fp32 = self.grad_accum_dtype is DType.FP32 is not self.model_dtype
        return accumulates_fp32 and self.optimizer.name != "MuonWithAuxAdam"

    @cached_property
    def communicated_apart(self) -> frozenset[int]:
        """Tensors that autocast leaves in their dtype when gradients are reduced."""
        if self.autocast_dtype in (None, self.trained_dtype):
            return frozenset()
        return zero_rules.outside_autocast(self.model)

    @cached_property
    def flattens_on_gpu(self) -> bool:
        """Whether the GPU has room for model and flat copy (stage_1_and_2.py:451-453)."""
        weights = num_bytes(self.num_trainable + sum(self.frozen), self.model_dtype)
        weights += sum(self.frozen_codes)
        flat = num_bytes(sum(self.flat_groups), self.model_dtype)
        return self.gpu_memory is None or self.gpu_memory - weights >= flat

    @cached_property
    def step_activations(self) -> MicroStep:
        """Activations of one micro step."""
        return compose.activations_of(self)

    @cached_property
    def num_recomputed(self) -> int:
        """Checkpointed blocks."""
        return compose.num_recomputed(self)

    @cached_property
    def recomputed_share(self) -> float:
        """Checkpointed blocks among all."""
        if not self.checkpointing or self.checkpointing_how.takes_all:
            return float(self.checkpointing)
        blocks = sum(part.count for part in self.step_activations.parts if part.blocks)
        return self.num_recomputed / blocks if blocks else 1.0

    @cached_property
    def checkpointed_input(self) -> int:
        """Bytes of one checkpointed block's input."""
        width = self.model.arch.hidden or 0
        return num_bytes(self.micro_batch * self.seq_len * width, self.model_dtype)

    @cached_property
    def inputs(self) -> Inputs | None:
        """What becomes of checkpointed inputs; None where they just stay, the usual way."""
        return compose.inputs_of(self)

    @cached_property
    def mask(self) -> Mask | None:
        """What padded or packed sequences add; None where that is not known."""
        return compose.mask_of(self)

    @cached_property
    def zero(self) -> Zero:
        """What ZeRO brings to forward and backward."""
        return zero_rules.zero_of(self)

    @cached_property
    def timeline(self) -> Timeline:
        """The highest points of forward and backward."""
        return compose.timeline_of(self)


_OF_ONE_RANK = ("gradient_numel", "zero", "timeline")  # all cached properties that read the rank
