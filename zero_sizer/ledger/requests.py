"""The largest tensors that a step asks for: free memory in pieces does not serve them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from zero_sizer.activations import loss, select
from zero_sizer.config import workload
from zero_sizer.config.workload import INFERENCE
from zero_sizer.hardware.outside import batches_on_gpu
from zero_sizer.ledger.moments import PASSES, STEP
from zero_sizer.plan import sizes
from zero_sizer.plan.plan import derived
from zero_sizer.timeline.reduction_rules import buffers_gradients, comm_dtypes
from zero_sizer.units import MIB, DType, num_bytes
from zero_sizer.zero.copies import NORM_CHUNK, NORM_ITEMSIZE
from zero_sizer.zero.partition import tensor_partition
from zero_sizer.zero.wrapper import Wrapper

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zero_sizer.ledger.moments import Moment
    from zero_sizer.plan.plan import Plan


class Rooms(NamedTuple):
    """Bytes that must be there beside what is live, though nothing of them need ever be.

    Attributes:
        passes: while forward and backward run.
        step: while the optimizer steps.
    """

    passes: int
    step: int

    def beside(self, passes: int, step: int, peak: int) -> int:
        """Room beside a job's ``peak``, from the highest of passes and of the step."""
        return max(passes + self.passes - peak, step + self.step - peak, 0)


def rooms_of(plan: Plan) -> Rooms:
    """For the largest tensor, with the holes that it does not fit into, and batches of data."""
    return rooms_from(room_of_passes(plan), room_of_gradients(plan))


def rooms_from(of_passes: tuple[int, int], of_gradients: tuple[int, int]) -> Rooms:
    """``rooms_of`` from ``room_of_passes`` and ``room_of_gradients``."""
    (passes, batches), (reduced, step) = of_passes, of_gradients
    return Rooms(max(passes, reduced) + batches, step + batches)


def room_of(plan: Plan, moments: Mapping[Moment, int]) -> int:
    """Room beside the peak of a GPU with so many bytes live at each moment."""
    if plan.task == INFERENCE:
        return _of_inference(plan)
    passes = max(size for moment, size in moments.items() if moment in PASSES)
    step = max(size for moment, size in moments.items() if moment in STEP)
    return rooms_of(plan).beside(passes, step, max(moments.values()))


def _of_inference(plan: Plan) -> int:
    """One more of the largest tensor of a prefill, a layer's cache, or a gathered parameter."""
    arch, rows = plan.model.arch, plan.micro_batch * plan.seq_len
    logits = plan.micro_batch if plan.new_tokens else rows
    tokens = rows + plan.micro_batch * plan.new_tokens
    keys = tokens * (arch.kv_heads or arch.heads or 0) * (arch.head_dim or 0)
    found = [
        num_bytes(logits * (arch.vocab or 0), DType.FP32),
        num_bytes(rows * (arch.ffn or 0), plan.model_dtype),
        num_bytes(keys, plan.model_dtype),
    ]
    if plan.attention == "eager":
        found.append(num_bytes(rows * plan.seq_len * (arch.heads or 0), DType.FP32))
    if plan.stage == 3:
        found.append(num_bytes(max(sizes.numels(plan), default=0), plan.model_dtype))
    return max(found)


@derived
def room_of_passes(plan: Plan) -> tuple[int, int]:
    """For logits as the loss takes them, scores, feed-forward, a gather; and for batches."""
    arch, tokens = plan.model.arch, plan.micro_batch * plan.seq_len
    dtype = plan.autocast_dtype or plan.model_dtype
    found = [_of_loss(plan), num_bytes(tokens * (arch.ffn or 0), dtype)]
    if plan.attention == "eager":
        found.append(num_bytes(tokens * plan.seq_len * (arch.heads or 0), DType.FP32))
    if plan.stage == 3:
        found.append(num_bytes(max(sizes.numels(plan), default=0), plan.model_dtype))
    return _with_holes(max(found)), batches_on_gpu(plan.micro_batch, plan.seq_len)


@derived
def room_of_gradients(plan: Plan) -> tuple[int, int]:
    """For the largest that is made of gradients: while they are reduced, and in the step."""
    return _with_holes(max(_bucket(plan), _norm(plan))), _flat(plan)


_HOLES = (13, 10), 512 * MIB
"""Room that the largest tensor of forward and backward wants: of its size, and beside that. It
comes from one piece, and free memory lies in many. Read off two drawings of replayed jobs; how many
needed more: benchmarks/results.md, "Reserve"."""


def _with_holes(largest: int) -> int:
    """Bytes that must be free for the largest tensor to find a piece."""
    (above, below), beside = _HOLES
    return largest * above // below + beside if largest else 0


def _bucket(plan: Plan) -> int:
    """The buffer of stages 1 and 2, made anew for each backward (stage_1_and_2.py:3264-3277)."""
    if plan.wrapper is not Wrapper.ZERO12 or not buffers_gradients(plan):
        return 0
    return max(num_bytes(plan.reduce_bucket_size, dtype) for dtype in comm_dtypes(plan))


def _norm(plan: Plan) -> int:
    """This rank's part of a gradient in fp64, on its way to the host (``zero.copies``)."""
    if not plan.offloads_optimizer:
        return 0
    largest = sizes.largest_tensor(plan)
    if plan.wrapper is Wrapper.ZERO3:
        part = min(tensor_partition(largest, plan.dp_world_size), NORM_CHUNK)
    else:
        part = min(largest, max(sizes.partitions(plan), default=0))
    return part * NORM_ITEMSIZE


def _flat(plan: Plan) -> int:
    """The largest partition's gradients as one flat tensor of the master's dtype.

    Each step makes it anew: stages 1 and 2 (stage_1_and_2.py:3095-3123) unless gradients lie in
    such a buffer already, stage 3 for a sub-group (stage3.py:2683-2692), stage 0 for all
    (fp16/fused_optimizer.py:230-250).
    """
    is_made = plan.wrapper in _FLATTENS and not sizes.has_compact_gradients(plan)
    if plan.offloads_optimizer or not is_made:
        return 0
    return num_bytes(max(sizes.partitions(plan), default=0), plan.master_dtype)


_FLATTENS = (Wrapper.ZERO12, Wrapper.ZERO3, Wrapper.FP16_FUSED)


def _of_loss(plan: Plan) -> int:
    if plan.loss == workload.FUSED_LINEAR:
        sizes = select.loss_sizes(plan)
        return loss.chunk(sizes) if sizes.vocab else 0
    logits = plan.micro_batch * plan.seq_len * (plan.model.arch.vocab or 0)
    is_copied = plan.loss not in (workload.FUSED, workload.SIXTEEN_BITS)
    return num_bytes(logits, DType.FP32 if is_copied else plan.autocast_dtype or plan.model_dtype)
