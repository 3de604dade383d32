"""Forward and backward, step by step: activations, gathered parameters and gradients together.

The activations come from a model's profile (``zero_sizer.profiles``), cut where parameters matter:
where a module that owns some begins to run, and where a gradient becomes complete. At the same
places ZeRO-3 gathers (``gather``) and the reduction hooks run (``gradient_flow``). What holds in
all of a phase is not here: it is in the ledger.

Blocks that are equal save equally, so over a run of blocks activations are a line, and only the
upper hull of what ZeRO holds can meet it at the highest point. The hulls depend neither on the
batch nor on the sequence; they are kept.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from zero_sizer.passes.levels import MicroStep, PartLevels, SectionLevels, remaining
from zero_sizer.zero.gather import Limits, Trace, gathered_numels
from zero_sizer.zero.gradient_flow import Flow, Held, Rules, Tensors, flow

_NOTHING = Held(0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class Instant:
    """The highest point of a pass, in bytes beside everything persistent.

    Attributes:
        place: what is running, for a reader.
        activations: saved and transient, logits and loss included.
        gathered: ZeRO-3's gathered parameters and gather buffers.
        held: gradients, buckets and reduction copies.
    """

    place: str
    activations: int
    gathered: int
    held: Held

    @property
    def total(self) -> int:
        """All of it."""
        return self.activations + self.gathered + self.held.total


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """The highest points of forward and backward, and what backward leaves behind."""

    forward: Instant
    backward: Instant


class Place(NamedTuple):
    """One step of one block: where the parts' steps meet parameters (indices into the model's)."""

    label: str
    gathers: tuple[tuple[int, ...], ...]  # the parameters of each module that is fetched
    completes: int  # -1: none


@dataclass(frozen=True)
class Layout:
    """The places of a step, in order, as the profile cuts it.

    Attributes:
        forward: per part, per step position, per block.
        backward: per part (still in forward order), per step position, per block in the order in
            which backward runs them.
    """

    forward: tuple[tuple[tuple[Place, ...], ...], ...]
    backward: tuple[tuple[tuple[Place, ...], ...], ...]


@dataclass(frozen=True, kw_only=True)
class Zero:
    """What ZeRO brings: parameters, and the rules of gathering and reduction.

    Attributes:
        tensors: the trainable tensors by group.
        persistent: which parameters stay gathered.
        itemsize: bytes per element of a gathered parameter.
        ranks: ranks that parameters are gathered from; 0 where none are.
        limits: of gathering.
        rules: of reduction.
    """

    tensors: Tensors
    persistent: tuple[bool, ...]
    itemsize: int
    ranks: int
    limits: Limits
    rules: Rules


def timeline(step: MicroStep, layout: Layout, zero: Zero) -> Timeline:
    """Compose one micro step's activations with what ZeRO holds at every place."""
    hulls = _hulls(layout, zero)
    forward = _highest(step.parts, hulls.forward, is_backward=False, level=0)
    backward = _highest(step.parts, hulls.backward, is_backward=True, level=step.saved)
    over = after_backward(step, hulls.last_gathered, hulls.epilogue)
    return Timeline(forward=forward, backward=max(backward, over, key=lambda i: i.total))


def after_backward(step: MicroStep, gathered: int, epilogue: Held) -> Instant:
    """The reduction that follows the last gradient, beside what activations are left."""
    return Instant(
        place="reduction after the last gradient",
        activations=remaining(step),
        gathered=gathered,
        held=epilogue,
    )


class Point(NamedTuple):
    """What ZeRO holds at one block's place, while the step runs or at its end."""

    block: int
    gathered: int
    held: Held
    label: str

    @property
    def total(self) -> int:
        """Both."""
        return self.gathered + self.held.total


class _Hulls(NamedTuple):
    """Per part and step position: the points that can be highest, within and at its end."""

    forward: tuple[tuple[tuple[tuple[Point, ...], tuple[Point, ...]], ...], ...]
    backward: tuple[tuple[tuple[tuple[Point, ...], tuple[Point, ...]], ...], ...]
    last_gathered: int
    epilogue: Held


@lru_cache(maxsize=256)
def _hulls(layout: Layout, zero: Zero) -> _Hulls:
    walk = Walk(layout, zero)
    forward = tuple(_hulls_of(walk.part(part)) for part in layout.forward)
    backward = tuple(_hulls_of(walk.part(part)) for part in reversed(layout.backward))[::-1]
    return _Hulls(forward, backward, walk.gathered, walk.epilogue)


def _hulls_of(
    positions: Iterable[tuple[Sequence[Point], Sequence[Point]]],
) -> tuple[tuple[tuple[Point, ...], tuple[Point, ...]], ...]:
    return tuple((_hull(within), _hull(ends)) for within, ends in positions)


class Walk:
    """Runs through the places in order and notes what ZeRO holds.

    Attributes:
        gathered: bytes of gathered parameters where it stands.
        epilogue: what the reduction after the last gradient holds.
    """

    def __init__(self, layout: Layout, zero: Zero) -> None:
        self._series = iter(_gathered(layout, zero))
        self._reduction = _flow(layout, zero)
        self._itemsize = zero.itemsize
        self._held = self._reduction.start
        self.gathered = 0
        self.epilogue = self._reduction.epilogue

    def part(
        self, positions: tuple[tuple[Place, ...], ...]
    ) -> list[tuple[list[Point], list[Point]]]:
        """Per step position: the points of every block while it runs, and at its end."""
        num_blocks = len(positions[0]) if positions else 0
        found: list[tuple[list[Point], list[Point]]] = [([], []) for _ in positions]
        for block in range(num_blocks):
            for (within, ends), places in zip(found, positions, strict=True):
                inside, end = self._at(block, places[block])
                within.append(inside)
                ends.append(end)
        return found

    def _at(self, block: int, place: Place) -> tuple[Point, Point]:
        highest = self.gathered
        for position, _ in enumerate(place.gathers):
            self.gathered = next(self._series, 0) * self._itemsize
            highest = max(highest if position else 0, self.gathered)
        step = self._reduction.steps.get(place.completes)
        before = hook = self._held
        if step is not None:
            before, hook, self._held = step
        return (
            Point(block, highest, before, place.label),
            Point(block, self.gathered, hook, place.label),
        )


def _hull(points: Sequence[Point]) -> tuple[Point, ...]:
    """The upper hull over the block number: one of its points is highest on any line."""
    hull: list[Point] = []
    for point in points:
        while len(hull) > 1 and _is_below(hull[-2], hull[-1], point):
            hull.pop()
        hull.append(point)
    return tuple(hull)


def _is_below(a: Point, b: Point, c: Point) -> bool:
    rise, run = c.total - a.total, c.block - a.block
    return (b.total - a.total) * run <= rise * (b.block - a.block)


def _gathered(layout: Layout, zero: Zero) -> tuple[int, ...]:
    if not zero.ranks:
        return ()
    forward = [module for place in _in_order(layout.forward) for module in place.gathers]
    backward = [module for place in _in_order(layout.backward[::-1]) for module in place.gathers]
    modules = (*forward, *backward)
    trace = Trace(zero.tensors.numels, zero.persistent, modules, len(forward), zero.ranks)
    return gathered_numels(trace, zero.limits)


def _flow(layout: Layout, zero: Zero) -> Flow:
    order = tuple(p.completes for p in _in_order(layout.backward[::-1]) if p.completes >= 0)
    return flow(zero.tensors, order, zero.rules)


def _in_order(parts: Sequence[tuple[tuple[Place, ...], ...]]) -> Iterator[Place]:
    for positions in parts:
        for block in range(len(positions[0]) if positions else 0):
            for places in positions:
                yield places[block]


def _highest(
    parts: Sequence[PartLevels],
    hulls: Sequence[tuple[tuple[tuple[Point, ...], tuple[Point, ...]], ...]],
    *,
    is_backward: bool,
    level: int,
) -> Instant:
    best = -1
    found: tuple[int, Point] = (0, Point(0, 0, _NOTHING, ""))
    pairs = list(zip(parts, hulls, strict=True))
    for part, positions in reversed(pairs) if is_backward else pairs:
        section: SectionLevels = part.backward if is_backward else part.forward
        for step, (within, ends) in zip(section.steps, positions, strict=True):
            for activations, points in ((step.peak, within), (step.end, ends)):
                for point in points:
                    at = level + point.block * section.end + activations
                    total = at + point.total
                    if total > best:
                        best, found = total, (at, point)
        level += part.count * section.end
    activations, point = found
    return Instant(
        place=point.label, activations=activations, gathered=point.gathered, held=point.held
    )
