"""Tracing one model in every way that changes its memory."""

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import field
from functools import cache
from typing import Any

import torch

from zero_sizer.errors import UnsupportedError
from zero_sizer.models.changes.lora import PREFIX
from zero_sizer.models.feeds import Feed
from zero_sizer.models.feeds.records import LONGEST
from zero_sizer.simulator import batches
from zero_sizer.simulator.simulation import OF_INPUTS
from zero_sizer.tracing import build, fitted, linear, session, symbolic
from zero_sizer.tracing.depth import stacks_of, with_followed
from zero_sizer.tracing.depth import whole as whole_stack
from zero_sizer.tracing.fitted import FittedStack, Range
from zero_sizer.tracing.recorder import Recorder
from zero_sizer.tracing.step import Trace, run_step
from zero_sizer.util.records import dataclass

VARIANTS = ("bf16", "fp32", "autocast")
# ZeRO-3's linear layers keep what autocast was handed, torch's the casts of it; and they make the
# gradient of a bias after that of the weight.
TRAINED_VARIANTS = (*VARIANTS, "autocast zero3")
BIASED_VARIANTS = (*VARIANTS, *(f"{v} zero3" for v in VARIANTS))
# Where weights are frozen, ZeRO-3's linear layers save more than torch's.
FROZEN_VARIANTS = (*VARIANTS, *(f"{v} zero3" for v in (*VARIANTS, "mixed")))
_GRID = (128, 320)  # every model bundled takes 512 positions
_HELD_OUT = 448
_STEP = 64
_EIGHT = 8  # what kernels pad to
_ROUNDING = 8 * 512  # bytes: what torch's allocator rounds a few small storages by
_IDS = 16  # bytes a token: two integers, as copies of ids and labels


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Setup of a trace.

    Attributes:
        variant: ``bf16`` (a 16-bit model), ``fp32``, or ``autocast`` (bf16 over fp32 weights);
            with `` zero3`` behind it, under ZeRO-3's linear layers; there also ``mixed`` (a 16-bit
            model whose adapter stays in fp32).
        attention: ``flash``, ``sdpa`` or ``eager``.
        checkpointing: whether every block is recomputed.
    """

    variant: str
    attention: str
    checkpointing: bool


@dataclass(frozen=True, kw_only=True)
class FittedRange:
    """A fit and where it holds; of several, the first that covers a point is meant."""

    where: Range
    stack: FittedStack


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model to be traced.

    Attributes:
        config: of transformers or diffusers.
        changes: to the model of the config.
        feed: what a sample brings; None: token ids and labels.
        depths: blocks that are left of each stack, by its name; none: all.
        in_blocks: whether blocks are told apart; else all that runs is one part.
        more: number of images, or that and of windows of each -> feed, for whoever traces several.
    """

    config: Any
    changes: build.Changes = build.UNCHANGED
    feed: Feed | None = None
    depths: Mapping[str, int] = field(default_factory=dict)
    in_blocks: bool = True
    more: Mapping[Any, Feed] = field(default_factory=dict)


class Tracer:
    """Traces a model of a config at the smallest depth that shows every kind of block.

    Args:
        fields: the config.json.
        changes: to the model of the config.
        feed: what a sample brings; None: token ids and labels.
        whole: trace all blocks.
        in_blocks: tell blocks apart; where they do not follow one another, nothing but one part
            says what runs.
    """

    def __init__(
        self,
        fields: Mapping[str, Any],
        *,
        changes: build.Changes = build.UNCHANGED,
        feed: Feed | None = None,
        whole: bool = False,
        in_blocks: bool = True,
    ) -> None:
        self.config = build.config_of(fields)
        self.model_class = build.model_class(self.config).__name__
        full = build.build(self.config, torch.bfloat16, torch.device("meta"), "eager")
        full = build.change(full, changes)
        names = build.block_names(full) if in_blocks else []
        followed = build.followed(full)
        self.stacks = [
            with_followed(stack, followed.get(stack.prefix, ()))
            for stack in stacks_of(names, build.kinds(full, names))
        ]
        if build.has_input_of_each_block(self.config):
            self.stacks = [whole_stack(stack) for stack in self.stacks]
        self.windows = build.windows(self.config)
        self._seen: dict[Any, list[FittedRange]] = {}
        self.most = LONGEST if feed is None else feed.most
        own = {stack.prefix.removeprefix(PREFIX): stack.traced for stack in self.stacks}
        depths = {} if whole else own  # the base is cut, before peft wraps it
        self.subject = Subject(
            config=self.config, changes=changes, feed=feed, depths=depths, in_blocks=in_blocks
        )

    def fits(self, setup: Setup) -> list[FittedRange]:
        """The model's step under ``setup``, for every batch and sequence.

        Raises:
            UnsupportedError: transformers does not run the model so.
        """
        with traced(self.subject, setup) as (trace, owners):
            known = self._known(setup, trace)
            if not known:
                windows = list(self.ranges())
                known += [
                    fit
                    for window in windows
                    for fit in _fit_range(trace, owners, window, self.most)
                ]
            return known

    def at(self, setup: Setup, b: int, s: int) -> FittedRange:
        """The model's step for one batch and sequence.

        Raises:
            UnsupportedError: transformers does not run the model so.
        """
        with traced(self.subject, setup) as (trace, owners):
            where = Range(with_batch=b > 1, sequences=(s, s), samples=b)
            return FittedRange(where=where, stack=fitted.measure(trace(b, s), owners))

    def _known(self, setup: Setup, trace: Callable[[int, int], Trace]) -> list[FittedRange]:
        """The fits of another attention that makes the very same trace, else an empty list."""
        rows = self._probed(trace)
        return self._seen.setdefault((setup.variant, setup.checkpointing, rows), [])

    def probe(self, setup: Setup) -> tuple[Any, ...]:
        """Key that two setups share that make the very same trace.

        Raises:
            UnsupportedError: transformers does not run the model so.
        """
        with traced(self.subject, setup) as (trace, _):
            return self._probed(trace)

    def _probed(self, trace: Callable[[int, int], Trace]) -> tuple[Any, ...]:
        probes = [trace(*points_of(window, self.most)[0].held_out) for window in self.ranges()]
        return tuple((probe.events, probe.sizes) for probe in probes)

    def ranges(self) -> Iterator[tuple[int, int]]:
        """Smallest and largest sequence of each kind of attention mask."""
        low = max(self.subject.feed.fewest, 1) if self.subject.feed is not None else 1
        for window in self.windows:  # from here on a mask is made
            if window <= low:
                continue
            yield low, window - 1
            low = window
        yield low, LONGEST


Steps = tuple[Callable[..., Trace], frozenset[str]]


@contextmanager
def traced(subject: Subject, setup: Setup) -> Iterator[Steps]:
    """A function that traces a step at (b, s), and the names of the modules that own parameters.

    Of a subject with several feeds, it takes the key of one as a third.

    Args:
        subject: the model.
        setup: how to run it.

    Raises:
        UnsupportedError: transformers does not run the model so.
    """
    precision, _, is_zero3 = setup.variant.partition(" ")
    if setup.attention == "flash" and precision == "fp32":
        raise UnsupportedError("flash attention takes 16-bit tensors only")
    recorder = Recorder()
    dtype = torch.bfloat16 if precision in ("bf16", "mixed") else torch.float32
    feed = subject.feed
    fake = session.fake_gpu(recorder, keeps_values=OF_INPUTS if feed is not None else 0)
    with fake as where, linear.installed(is_on=bool(is_zero3)):
        config = deepcopy(subject.config)  # a cut changes it
        model = build.build(config, dtype, where, build.ATTENTION[setup.attention])
        build.cut(model, subject.depths)
        model = build.change(model, subject.changes)
        if precision == "bf16":
            build.cast(model, dtype)
        if setup.checkpointing:
            build.checkpoint(model)
        blocks = build.block_names(model) if subject.in_blocks else []
        owners = frozenset(
            name
            for name, module in model.named_modules()
            if any(parameter is not None for parameter in module._parameters.values())
        )

        fed = torch.float32 if precision == "autocast" else dtype

        @cache
        def trace(b: int, s: int, images: Any = None) -> Trace:
            given = feed if images is None else subject.more[images]
            batch = (
                build.batch(b, s, where)
                if given is None
                else batches.batch(given, b, s, where, fed)
            )
            return run_step(model, blocks, recorder, batch, given, autocast=precision == "autocast")

        try:
            yield trace, owners
        finally:  # a model in cycles, as peft's are, must go before its device does
            model = None
            gc.collect()


def _fit_range(
    trace: Callable[[int, int], Trace],
    owners: frozenset[str],
    window: tuple[int, int],
    most: int,
) -> list[FittedRange]:
    every, alone = points_of(window, most)
    fit = _fit(trace, owners, every)
    is_one = _holds_for_one(fit.stack, trace, owners, alone)
    return [fit] if is_one else [_fit(trace, owners, alone), fit]


def _fit(
    trace: Callable[[int, int], Trace], owners: frozenset[str], points: "Points"
) -> FittedRange:
    stack = fitted.fit(traces_at(trace, points), points.held_out, owners, points.where)
    return FittedRange(where=points.where, stack=stack)


@dataclass(frozen=True, kw_only=True)
class Points:
    """Where a fit is traced.

    Attributes:
        where: where it holds.
        fitted: (batch, sequence) it goes through.
        held_out: that it must give, too.
    """

    where: Range
    fitted: tuple[symbolic.Point, ...]
    held_out: symbolic.Point


def points_of(window: tuple[int, int], most: int = LONGEST) -> tuple[Points, Points]:
    """For several samples, and for one, where torch copies less.

    Args:
        window: smallest and largest sequence.
        most: tokens that the model takes.
    """
    low, _ = window
    start = 0 if low <= _GRID[0] else -(-low // _STEP) * _STEP
    short, long, held_out = (start + s for s in (*_GRID, _HELD_OUT))
    if held_out > most:  # a caption
        short, long, held_out = (
            most * s // _HELD_OUT // _EIGHT * _EIGHT for s in (short, long, held_out)
        )
    every = Points(
        where=Range(with_batch=True, sequences=window),
        fitted=((2, short), (3, long), (4, short)),
        held_out=(3, held_out),
    )
    alone = Points(
        where=Range(with_batch=False, sequences=window),
        fitted=((1, short), (1, long)),
        held_out=(1, held_out),
    )
    return every, alone


def points_that_differ(
    trace: Callable[[int, int], Trace],
    owners: frozenset[str],
    window: tuple[int, int],
    most: int = LONGEST,
) -> list[Points]:
    """The points for several samples; before them those for one, where its trace is another."""
    every, alone = points_of(window, most)
    is_one = _holds_for_one(_fit(trace, owners, every).stack, trace, owners, alone)
    return [every] if is_one else [alone, every]


def traces_at(trace: Callable[[int, int], Trace], points: Points) -> dict[symbolic.Point, Trace]:
    """The traces that a fit needs."""
    return {point: trace(*point) for point in (*points.fitted, points.held_out)}


def _holds_for_one(
    stack: FittedStack,
    trace: Callable[[int, int], Trace],
    owners: frozenset[str],
    alone: Points,
) -> bool:
    """Whether the fit for several samples holds for one, but for rounding and copies of ids."""
    return _agrees(stack, fitted.measure(trace(*alone.held_out), owners), alone.held_out[1])


def _agrees(stack: FittedStack, measured: FittedStack, s: int) -> bool:
    tolerance = _ROUNDING + _IDS * s
    if len(stack.rows) != len(measured.rows):
        return False
    for (_, _, fit), (_, _, seen) in zip(stack.rows, measured.rows, strict=True):
        if len(fit.steps) != len(seen.steps):
            return False
        for left, right in zip(fit.steps, seen.steps, strict=True):
            peak = max(symbolic.at(poly, 1, s) for poly in left.peaks)
            if abs(peak - right.peaks[0][0]) > tolerance:
                return False
            if abs(symbolic.at(left.end, 1, s) - right.end[0]) > tolerance:
                return False
    return True
