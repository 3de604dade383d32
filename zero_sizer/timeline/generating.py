"""The highest points of prefill and decode: activations, packed weights, gathered parameters."""

from __future__ import annotations

from typing import NamedTuple

from zero_sizer.activations import inference
from zero_sizer.models import kv_cache
from zero_sizer.plan import sizes
from zero_sizer.plan.plan import Plan, derived
from zero_sizer.timeline.generating_gathers import NOTHING, gathers_of
from zero_sizer.timeline.unpacked_codes import decoded_bytes
from zero_sizer.timeline.unpacking import unpacked_bytes
from zero_sizer.units import DType, num_bytes
from zero_sizer.zero.trace import Known


class Highest(NamedTuple):
    """The highest point of prefill or decode.

    Attributes:
        num_bytes: activations and the cache, as if that grew.
        unpacked: beside them, of a product with packed weights.
        gathered: of ZeRO-3's parameters.
        persistent: of those parameters that stay gathered, where all of them are there.
        place: what is running.
    """

    num_bytes: int
    unpacked: int
    gathered: int
    persistent: int
    place: str

    @property
    def total(self) -> int:
        """All together."""
        return self.num_bytes + self.unpacked + self.gathered + self.persistent


_NOTHING = Highest(0, 0, 0, 0, "")
_MODEL = "the model"


@derived
def of_prefill(plan: Plan) -> Highest:
    """The highest point while prompts are read: of the first request, or a later one."""
    if plan.stage != 3:
        known: tuple[Known, ...] = (Known.NOTHING,)
    elif plan.new_tokens > 1:
        known = (Known.NOTHING, Known.EVERYTHING)
    else:  # the second request is the second forward
        known = tuple(Known)
    return max((_highest(plan, 0, plan.seq_len, one) for one in known), key=_total)


@derived
def of_decode(plan: Plan) -> Highest:
    """The highest point while tokens are generated: the first, which finds the prompt's, or last.

    A run of ``n`` new tokens decodes ``n - 1`` times: the prefill makes the first of them.
    """
    if plan.new_tokens < 2:
        return _NOTHING
    known = (Known.ORDER, Known.EVERYTHING) if plan.stage == 3 else (Known.EVERYTHING,)
    found = [_highest(plan, 1, plan.seq_len, one) for one in known]
    if plan.new_tokens > 2:
        last = plan.seq_len + plan.new_tokens - 3
        found.append(_highest(plan, 2, last, Known.EVERYTHING))
    return max(found, key=_total)


@derived
def is_traced(plan: Plan) -> bool:
    """True if a profile knows what the model holds."""
    profile = inference.load(plan.model)
    return profile is not None and bool(_traced(plan, profile, 0, plan.seq_len))


def _highest(plan: Plan, phase: int, tokens: int, known: Known) -> Highest:
    rows = plan.micro_batch * (plan.seq_len if phase == 0 else 1)
    profile = inference.load(plan.model)
    found = _traced(plan, profile, phase, tokens) if profile is not None else []
    points = found or [inference.Point(_closed_form(plan, phase, tokens), _MODEL)]
    gathers = gathers_of(plan, known)
    is_there = known is Known.EVERYTHING and gathers is not NOTHING
    persistent = sizes.persistent_bytes(plan) if is_there else 0
    return max(
        (
            Highest(
                point.num_bytes,
                _unpacked(plan, point, rows),
                gathers.at(point) if point.place != _MODEL else gathers.most,
                persistent,
                point.place,
            )
            for point in points
        ),
        key=_total,
    )


def _total(found: Highest) -> int:
    return found.total


def _traced(
    plan: Plan, profile: inference.Profile, phase: int, tokens: int
) -> list[inference.Point]:
    bits = 8 * plan.model_dtype.itemsize
    attention = profile.attention(plan.attention, bits)
    if attention is None:
        return []
    mode = inference.GENERATE if plan.new_tokens else inference.SCORE
    return profile.points(
        phase,
        mode=mode,
        attention=attention,
        bits=bits,
        batch=plan.micro_batch,
        tokens=max(tokens, 1),
        every=plan.stage == 3,
    )


def _unpacked(plan: Plan, point: inference.Point, rows: int) -> int:
    if point.when != inference.RUNNING:
        return 0
    if plan.model.codes is not None:
        if point.block == inference.HEAD and plan.new_tokens:  # the last position's logits
            rows = plan.micro_batch
        return decoded_bytes(plan.model, point.module, rows, plan.model_dtype)
    if plan.model.quantization is None:
        return 0
    return unpacked_bytes(plan.model, point.module, rows, plan.model_dtype)


def _closed_form(plan: Plan, phase: int, tokens: int) -> int:
    """Cache, two residuals with a norm in fp32, and the wider of attention and feed-forward.

    For models whose structure nobody traced; ``checks`` says so.
    """
    arch = plan.model.arch
    rows = plan.micro_batch * (tokens if phase == 0 else 1)
    hidden, heads = arch.hidden or 0, (arch.heads or 0) * (arch.head_dim or 0)
    attention = num_bytes(4 * rows * heads, plan.model_dtype)
    if plan.attention == "eager":
        scores = rows * (tokens + 1) * (arch.heads or 0)
        attention += num_bytes(scores, DType.FP32) + num_bytes(scores, plan.model_dtype)
    wide = num_bytes(3 * rows * (arch.ffn or 4 * hidden), plan.model_dtype)
    norm = 2 * num_bytes(rows * hidden, DType.FP32)
    vocab = arch.vocab or 0
    logits = num_bytes((plan.micro_batch if plan.new_tokens else rows) * vocab, plan.model_dtype)
    if plan.new_tokens:  # of the last position, copied in fp32
        logits += num_bytes(plan.micro_batch * vocab, DType.FP32)
    kept = num_bytes(2 * rows * hidden, plan.model_dtype)
    elements = sum(
        kv_cache.while_decoding(layer, tokens + 1)
        if phase
        else kv_cache.after_prefill(layer, tokens)
        for layer in kv_cache.layers_of(plan.model)
    )
    cache = num_bytes(plan.micro_batch * elements, plan.model_dtype)
    return cache + kept + max(attention, wide, norm, logits)
