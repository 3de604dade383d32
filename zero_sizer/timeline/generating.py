"""The highest points of prefill and decode: activations, packed weights, gathered parameters."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from zero_sizer.activations import inference
from zero_sizer.hardware.device import Device
from zero_sizer.models import kv_cache
from zero_sizer.plan import sizes
from zero_sizer.plan.plan import Plan, derived
from zero_sizer.timeline import compose
from zero_sizer.timeline.program import program_of
from zero_sizer.timeline.unpacking import relative, unpacked_bytes
from zero_sizer.units import DType, num_bytes
from zero_sizer.util.identity import Identity
from zero_sizer.zero.forms import Padding, highest
from zero_sizer.zero.replay import gathered
from zero_sizer.zero.reuse import Visit
from zero_sizer.zero.trace import Limits, Trace


class Highest(NamedTuple):
    """The highest point of prefill or decode.

    Attributes:
        num_bytes: activations and the cache, as if that grew.
        unpacked: beside them, of a product with packed weights.
        gathered: of ZeRO-3's parameters.
        place: what is running.
    """

    num_bytes: int
    unpacked: int
    gathered: int
    place: str

    @property
    def total(self) -> int:
        """All together."""
        return self.num_bytes + self.unpacked + self.gathered


NOTHING = Highest(0, 0, 0, "")


@derived
def of_prefill(plan: Plan) -> Highest:
    """The highest point while prompts are read."""
    return _highest(plan, 0, plan.seq_len)


@derived
def of_decode(plan: Plan) -> Highest:
    """The highest point while tokens are generated: the first, which finds the prompt's, or last.

    A run of ``n`` new tokens decodes ``n - 1`` times: the prefill makes the first of them.
    """
    if plan.new_tokens < 2:
        return NOTHING
    found = [_highest(plan, 1, plan.seq_len)]
    if plan.new_tokens > 2:
        found.append(_highest(plan, 2, plan.seq_len + plan.new_tokens - 3))
    return max(found, key=lambda one: one.total)


@derived
def is_traced(plan: Plan) -> bool:
    """True if a profile knows what the model holds."""
    profile = inference.load(plan.model)
    return profile is not None and bool(_traced(plan, profile, 0, plan.seq_len))


def _highest(plan: Plan, phase: int, tokens: int) -> Highest:
    rows = plan.micro_batch * (plan.seq_len if phase == 0 else 1)
    profile = inference.load(plan.model)
    found = _traced(plan, profile, phase, tokens) if profile is not None else []
    points = found or [inference.Point(_closed_form(plan, phase, tokens), "the model")]
    gathers = _gathered_at(plan, is_first=phase == 0)
    return max(
        (
            Highest(level, _unpacked(plan, point.linear, rows), size, point.place)
            for point in points
            for level, size in _beside(plan, gathers, point, rows)
        ),
        key=lambda one: one.total,
    )


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


def _unpacked(plan: Plan, linear: str, rows: int) -> int:
    if not linear or plan.model.quantization is None:
        return 0
    return unpacked_bytes(plan.model, linear, rows, plan.model_dtype)


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


class _Gathers(NamedTuple):
    """Bytes of gathered parameters, by number of the block (-1 is outside).

    Attributes:
        fetching: while a module's parameters are brought, by its name without the block.
        running: while it runs.
        between: in a block, while no module runs that has parameters.
        begins: in a block, while parameters of another module than a linear layer are brought.
        before: the most in embeddings, before the first block ends a module.
    """

    fetching: dict[tuple[int, str], int]
    running: dict[tuple[int, str], int]
    between: dict[int, int]
    begins: dict[int, int]
    before: int = 0


def _beside(
    plan: Plan, gathers: _Gathers, point: inference.Point, rows: int
) -> Iterator[tuple[int, int]]:
    """Levels at a point with what is gathered then; a weight is there before the output."""
    key = point.block, point.linear
    if point.linear and key in gathers.running:
        output = _output_bytes(plan, point, rows)
        yield point.num_bytes, gathers.running[key]
        yield max(point.num_bytes - output, 0), gathers.fetching[key]
    elif point.place == inference.BEFORE:
        yield point.num_bytes, gathers.before
    else:
        found = gathers.begins if point.begins else gathers.between
        yield point.num_bytes, found.get(point.block, 0)


def _output_bytes(plan: Plan, point: inference.Point, rows: int) -> int:
    if point.block < 0 and plan.new_tokens:  # generate asks for the last position's logits
        rows = plan.micro_batch
    return num_bytes(rows * _widths(Identity(plan.model)).get(point.linear, 0), plan.model_dtype)


@lru_cache(maxsize=32)
def _widths(model: Identity) -> dict[str, int]:
    """Outputs of each layer, by its name without the block."""
    found = {relative(t.module): t.matrix[0] for t in model.of.parameters if len(t.matrix) == 2}
    return found | {"lm_head": model.of.arch.vocab or 0}


def _gathered_at(plan: Plan, *, is_first: bool) -> _Gathers:
    if plan.stage != 3 or not sizes.gathers_copies(plan):
        return _Gathers({}, {}, {}, {})
    # what lies on NVMe is never gathered ahead (partitioned_param_coordinator.py:436-440)
    waits = is_first or plan.param_device is Device.NVME
    limits = Limits(
        prefetch_bucket_size=0 if waits else plan.prefetch_bucket_size,
        max_live_parameters=plan.max_live_parameters,
        max_reuse_distance=0 if is_first else plan.max_reuse_distance,
    )
    return _gathers(
        Identity(plan.model),
        *_visits(plan),
        limits,
        sizes.itemsizes(plan),
        sizes.is_persistent(plan),
        plan.dp_world_size,
        plan.param_device is not Device.GPU,
        is_first,
    )


@lru_cache(maxsize=32)
def _gathers(  # noqa: PLR0913 (all that a cached answer depends on)
    model: Identity,
    names: tuple[str, ...],
    visits: tuple[Visit, ...],
    limits: Limits,
    itemsizes: tuple[int, ...],
    persistent: tuple[bool, ...],
    ranks: int,
    is_parked: bool,
    is_first: bool,
) -> _Gathers:
    numels = tuple(tensor.numel for tensor in model.of.parameters)
    trace = Trace(
        *(numels, itemsizes, itemsizes, persistent, visits, ranks == 1, is_parked),
        is_first=is_first,
    )
    padding = Padding(ranks)
    fetching: dict[tuple[int, str], int] = {}
    running: dict[tuple[int, str], int] = {}
    between: dict[int, int] = {}
    begins: dict[int, int] = {}
    before = 0
    for name, visit, pair in zip(names, visits, gathered(trace, limits), strict=True):
        during, after = (highest(forms, padding) if forms else 0 for forms in pair)
        number = next((int(part) for part in name.split(".") if part.isdigit()), -1)
        if not between and number < 0:  # embeddings
            before = max(before, during, after)
        elif not visit.begins:
            between[number] = max(between.get(number, 0), during, after)
        elif visit.parameters and _is_linear(model, name):
            fetching[number, relative(name)] = max(during, after)
            running[number, relative(name)] = after
        else:
            begins[number] = max(begins.get(number, 0), during, after)
    return _Gathers(fetching, running, between, begins, before)


def _is_linear(model: Identity, name: str) -> bool:
    return name == "lm_head" or name in _linears(model)


@lru_cache(maxsize=32)
def _linears(model: Identity) -> frozenset[str]:
    kinds = ("Linear", "Conv1D")
    return frozenset(t.module for t in model.of.parameters if t.module_type.startswith(kinds))


def _visits(plan: Plan) -> tuple[tuple[str, ...], tuple[Visit, ...]]:
    """Modules of a forward in the order in which they run, and their names.

    A container, which has no parameters, bears the name of what runs next in it; a head that is
    tied to an embedding its own.
    """
    visits, count = program_of(compose.places_of(plan)).visits
    forward = visits[:count]
    if not forward:
        return _in_order_of_parameters(Identity(plan.model))
    parameters = plan.model.parameters
    names: list[str] = []
    following = "lm_head"
    tied = {plan.model.parameters[0].module} if plan.model.arch.tied_embeddings else set()
    for visit in forward[::-1]:
        if visit.parameters:
            module = parameters[visit.parameters[0]].module
            is_head = module in tied and following == "lm_head"
            following = "lm_head" if is_head else module
        names.append(following)
    return tuple(names[::-1]), forward


@lru_cache(maxsize=32)
def _in_order_of_parameters(model: Identity) -> tuple[tuple[str, ...], tuple[Visit, ...]]:
    """Of a model that nobody traced."""
    owned: dict[str, list[int]] = {}
    for index, tensor in enumerate(model.of.parameters):
        owned.setdefault(tensor.module, []).append(index)
    if model.of.arch.tied_embeddings and owned:
        owned["lm_head"] = next(iter(owned.values()))
    names = tuple(name for name in owned for _ in range(2))
    visits = [
        visit
        for found in map(tuple, owned.values())
        for visit in (Visit(found), Visit(found, begins=False, ends=True))
    ]
    return names, tuple(visits)
