"""The largest tensor that a micro step asks for: free memory in pieces does not serve it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zero_sizer.passes import compose, loss
from zero_sizer.units import DType, num_bytes

if TYPE_CHECKING:
    from zero_sizer.plan import Plan


def largest_request(plan: Plan) -> int:
    """Bytes of the largest of: logits as the loss takes them, scores, feed-forward, a gather."""
    arch, tokens = plan.model.arch, plan.micro_batch * plan.seq_len
    dtype = plan.autocast_dtype or plan.model_dtype
    found = [_of_loss(plan), num_bytes(tokens * (arch.ffn or 0), dtype)]
    if plan.attention == "eager":
        found.append(num_bytes(tokens * plan.seq_len * (arch.heads or 0), DType.FP32))
    if plan.stage == 3:
        found.append(num_bytes(max(plan.numels, default=0), plan.model_dtype))
    return max(found)


def _of_loss(plan: Plan) -> int:
    if plan.loss == loss.FUSED_LINEAR:
        sizes = compose.loss_sizes(plan)
        return loss.chunk(sizes) if sizes.vocab else 0
    logits = plan.micro_batch * plan.seq_len * (plan.model.arch.vocab or 0)
    is_copied = plan.loss != loss.FUSED
    return num_bytes(logits, DType.FP32 if is_copied else plan.autocast_dtype or plan.model_dtype)
